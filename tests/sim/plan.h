// What one simulated life is made of: the pool's options, how its workers behave, which faults and
// commands come. Everything follows from the seed; each life leaves some kinds out.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "pool/config.h"
#include "sim/random.h"

namespace einhorn::sim {

enum class Behaviour {
  kHealthy,
  kSlowAck,
  kNeverAck,
  kCrashAtStart,
  kCrashLater,
  kCrashAfterAck,
  kHang,   // ignores its stop signal
  kDrain,  // takes minutes to stop
  kFork,   // leaves a child behind and exits
  kLeak,   // takes more and more memory, until the machine ends it
  kStall,  // serves and pings, and then does neither, nor does it hear its stop signal
  kSlow,   // begins a request and never ends it
};
inline constexpr std::size_t kPlainBehaviours = 10;  // in lives that watch nobody

// What happens to a pool from outside.
enum class Blow {
  kRequest,        // a client with a command or a few
  kBadRequest,     // a client with garbage, half lines, long lines
  kVanish,         // a client that goes before its answer
  kStall,          // a client that asks and does not read
  kFlood,          // a client that asks much at once
  kUpgrade,        // a client that upgrades and waits
  kSignal,         // a signal to the guard
  kKillWorker,     // kill -9 of a worker
  kKillMaster,     // kill -9 of the master, between two calls
  kStrikeMaster,   // kill -9 of the master at one of its next calls
  kClockJump,      // the wall clock is set
  kSnapshotFull,   // no room for the snapshot, for a while
  kNoDescriptors,  // accept fails, for a while
  kNoProcesses,    // spawning fails, for a while
  kPing,           // a worker pings
  kKillGuard,      // kill -9 of the guard, between two calls
  kStrikeGuard,    // kill -9 of the guard at one of its next calls
  kNewProgram,     // another version of Einhorn is installed
  kSubscribe,      // a client of the event stream
  kLoad,           // so many connections wait from now on; only in lives that scale
};
inline constexpr std::size_t kBlows = 20;

struct Plan {
  pool::Config config;
  std::uint32_t listeners = 1;
  bool command_as_fd = false;
  bool log_json = false;
  bool capture = false;
  bool agent = false;
  bool cgroups = false;
  Duration chaos{};                   // how long faults come
  Duration pause{};                   // about so long between two blows
  std::vector<Blow> blows;            // those of this life, some more than once
  std::vector<Behaviour> behaviours;  // of good versions
  std::uint64_t bad_versions = 0;     // of a thousand
  std::uint64_t short_transfers = 0;  // of a thousand reads and writes
  std::uint64_t dead_on_return = 0;   // of a thousand spawns: dead before the spawn has returned
  std::uint64_t stage_failures = 0;   // of a thousand spawns: it does not get to its program
  std::uint64_t bad_renewals = 0;     // of a thousand times that the guard becomes another program
  std::uint64_t log_full = 0;         // of a thousand log lines
  bool torn_writes = false;           // a killed master may leave half an entry
  bool bad_checks = false;            // a new master may fail to come up
  std::size_t packets = 1000;         // room between guard and master
  unsigned hooks = 0;                 // a bit each, in the order of pool::kHooks
  bool preload = false;               // workers are forked by zygotes
  bool intercept = false;             // a supervisor answers what workers bind
  std::string probe;                  // "http", "tcp", "command"; "": nobody is probed
  Pid last_pid = 32768;               // pids start anew behind this one
};

[[nodiscard]] Plan make_plan(Random& random);
// Probes, and workers for them to find. By the seed alone: other lives stay what they are.
void add_probes(Plan& plan, std::uint64_t seed);

}  // namespace einhorn::sim
