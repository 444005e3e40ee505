// A process of the simulated machine: alive, a zombie, or reaped.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "os/kernel.h"

namespace einhorn::sim {

struct PacketQueue;
class Stream;

// From here on: of workers whose epoch was not written down.
inline constexpr std::uint64_t kUnknownEpochs = std::uint64_t{1} << 60U;

enum class ProcessKind {
  kGuard,
  kMaster,
  kCheck,
  kWorker,
  kHelper,
  kReader,
  kClient,
  kZygote,
  kProber,
  kSupervisor,
  kHook
};

struct Process {
  Pid pid = 0;
  Pid parent = 0;
  Pid group = 0;
  ProcessKind kind = ProcessKind::kClient;
  bool dead = false;  // a zombie until it is reaped
  bool reaped = false;
  os::Ended ended;
  int program = 0;  // of Einhorn's own: the version that it executes
  Instant born_at;
  Instant died_at;
  // Of a worker:
  WorkerId worker;
  std::shared_ptr<Process> starter;  // the master that started it
  bool known = true;    // false: the spawn could not be written down, so nobody has to know it
  bool lost = false;    // nobody will ever know it: what was written of it is lost
  bool forked = false;  // by a zygote: known when its word has been read
  std::weak_ptr<PacketQueue> word;  // where it has said so
  bool said_up = false;             // it has ACKed itself
  std::uint64_t grows = 0;          // bytes a second that it leaks
  Instant stalled_at;               // since when it says nothing; 0: it does not stall
  std::vector<std::weak_ptr<Process>> spoken_for_by;  // whoever told its pid for their own
  std::weak_ptr<Stream> born_with;                    // with -g
  bool strange = false;          // somebody with its pid has asked for what it may not
  std::weak_ptr<Stream> silent;  // where it has connected to say its ACK, and has not said it yet
};
using ProcessPtr = std::shared_ptr<Process>;

}  // namespace einhorn::sim
