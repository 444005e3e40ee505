// A process of the simulated machine: alive, a zombie, or reaped.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/ids.h"
#include "base/instant.h"
#include "os/kernel.h"

namespace einhorn::sim {

enum class ProcessKind { kGuard, kMaster, kCheck, kWorker, kHelper, kClient };

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
  bool known = true;        // false: the spawn could not be written down, so nobody has to know it
  bool said_up = false;     // it has ACKed itself
  std::uint64_t grows = 0;  // bytes a second that it leaks
};
using ProcessPtr = std::shared_ptr<Process>;

}  // namespace einhorn::sim
