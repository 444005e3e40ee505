// What happens to a pool, and what it answers.
//
// Events come from the master: outcomes of earlier actions, news from the kernel, commands of
// people. Actions are carried out by the master in their order, after `step` has returned.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "pool/config.h"

namespace einhorn::pool {

// How a process ended; an unknown end is one that nobody could ask the kernel about.
struct ExitStatus {
  enum class Kind { kExited, kSignaled, kUnknown };
  Kind kind = Kind::kUnknown;
  int value = 0;  // exit code or signal number
  bool core_dumped = false;
};
// "exited with status 1", "was killed by signal 9 (KILL)", "ended in an unknown way".
[[nodiscard]] std::string describe(const ExitStatus& status);

// --- events -------------------------------------------------------------------------------------
namespace event {

struct Started {};   // the pool's life begins
struct TimerDue {};  // next_deadline() has come
struct Spawned {     // outcome of a Spawn action
  WorkerId worker;
};
struct SpawnFailed {  // outcome of a Spawn action
  WorkerId worker;
  std::string reason;  // "exec ./server: Permission denied"
};
struct Exited {
  WorkerId worker;
  ExitStatus status;
};
struct Acked {  // by the worker itself
  WorkerId worker;
  AckMode by = AckMode::kManual;
};
struct Pinged {
  WorkerId worker;
  std::string request_id;  // as JSON text; "" if there was none
};
struct StatusSaid {  // STATUS= on NOTIFY_SOCKET
  WorkerId worker;
  std::string text;
};
struct SetNumber {
  std::uint32_t number = 1;
};
struct Upgrade {  // to a version that the master has just recorded
  bool smooth = true;
  bool rollback = true;  // give up and go back when the new version fails
};
struct RollBack {};  // by hand: to the previous version
struct Stop {        // no more respawning; leave when all workers are gone
  int signal = SIGUSR2;
  bool sent = false;  // the kernel has delivered it already
};
struct Quit {  // signal everybody and leave at once with status 1
  int signal = SIGQUIT;
};
struct SignalAll {  // on somebody's behalf; nothing is recorded
  int signal = SIGUSR1;
};
struct Reconfigured {  // some options changed while running
  Config config;
};

}  // namespace event

using Event =
    std::variant<event::Started, event::TimerDue, event::Spawned, event::SpawnFailed, event::Exited,
                 event::Acked, event::Pinged, event::StatusSaid, event::SetNumber, event::Upgrade,
                 event::RollBack, event::Stop, event::Quit, event::SignalAll, event::Reconfigured>;

// --- notes: what happened, for the log, the event stream and whoever asked
// ------------------------
namespace note {

struct Launching {
  std::uint32_t count;
};
struct Launched {
  WorkerId worker;
  Version version;
};
struct LaunchFailed {
  WorkerId worker;
  Version version;
  std::string reason;
};
struct Exited {
  WorkerId worker;
  Version version;
  ExitStatus status;
  bool before_ack;
  bool stopping;  // it had been told to
  Duration lived;
};
struct Acked {
  WorkerId worker;
  AckMode by;
  Duration after;
};
struct AckCount {
  std::uint32_t ready;
  std::uint32_t target;
  std::uint32_t streak;
};
struct AckRefused {
  WorkerId worker;
  AckMode by;
  bool repeated;
};  // wrong mode, or the second one
struct AckOverdue {
  WorkerId worker;
  Duration waited;
};  // a warning each minute
struct AckMissed {
  WorkerId worker;
  Duration waited;
};
struct Signaling {
  int signal;
  std::vector<WorkerId> workers;
  std::vector<WorkerId> again;
};
struct Killing {
  WorkerId worker;
  Duration after;
};  // it did not react to its stop signal
struct BackingOff {
  Duration interval;
  std::uint32_t deaths;
};
struct UpgradeStarted {
  Version from;
  Version to;
  bool smooth;
  bool again;
  std::uint32_t ready;
};
struct CanaryProved {
  Version version;
  std::uint32_t workers;
};
struct CullingOld {
  std::uint32_t count;
  bool smooth;
};
struct CullingExcess {
  std::uint32_t count;
};
struct Upgraded {
  Version version;
};
struct UpgradeFailed {
  Version from;
  Version to;
  std::string reason;
  std::vector<std::string> failures;
};
struct RollBackStarted {
  Version from;
  Version to;
};
struct RolledBack {
  Version version;
};
struct RollBackRefused {
  std::string reason;
};
struct RollBackIncomplete {
  Version version;
  std::string reason;
};
struct NumberChanged {
  std::uint32_t from;
  std::uint32_t to;
};
struct GaveUp {
  std::uint32_t deaths;
};
struct Recovered {};  // a failed pool has a worker again, or was told to try
struct Stopping {
  int signal;
};
struct Gone {};  // the last worker of a stopping pool is gone

}  // namespace note

using Note =
    std::variant<note::Launching, note::Launched, note::LaunchFailed, note::Exited, note::Acked,
                 note::AckCount, note::AckRefused, note::AckOverdue, note::AckMissed,
                 note::Signaling, note::Killing, note::BackingOff, note::UpgradeStarted,
                 note::CanaryProved, note::CullingOld, note::CullingExcess, note::Upgraded,
                 note::UpgradeFailed, note::RollBackStarted, note::RolledBack,
                 note::RollBackRefused, note::RollBackIncomplete, note::NumberChanged, note::GaveUp,
                 note::Recovered, note::Stopping, note::Gone>;

// --- actions
// --------------------------------------------------------------------------------------
struct Spawn {
  WorkerId worker;
  Version version;
};
struct SendSignal {
  WorkerId worker;
  int signal = 0;
  bool group = false;  // the worker's whole process group
};
struct Leave {  // the master's word to the guard
  int exit_code = 0;
};

using Action = std::variant<Spawn, SendSignal, Note, Leave>;

}  // namespace einhorn::pool
