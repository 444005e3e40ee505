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
#include "pool/hook.h"

namespace einhorn::pool {

// How a process ended; an unknown end is one that nobody could ask the kernel about.
struct ExitStatus {
  enum class Kind { kExited, kSignaled, kUnknown };
  Kind kind = Kind::kUnknown;
  int value = 0;  // exit code or signal number
  bool core_dumped = false;
  bool out_of_memory = false;  // the kernel killed it for want of memory
};
// "exited with status 1", "was killed by signal 9 (KILL)", "ended in an unknown way".
[[nodiscard]] std::string describe(const ExitStatus& status);

// --- events -------------------------------------------------------------------------------------
namespace event {

struct Started {};   // the pool's life begins
struct TimerDue {};  // next_deadline() has come
struct Spawned {     // outcome of a Spawn action
  WorkerId worker;
  bool late = false;  // its code had to be loaded first: its life begins now
};
// Whom a failed spawn speaks against. Of several that fail for one reason, one is counted.
enum class Blame {
  kWorker,   // the next one may come up
  kVersion,  // none of this version will
  kNobody,   // it is not counted, nor said
};
struct SpawnFailed {  // outcome of a Spawn action
  WorkerId worker;
  std::string reason;  // "exec ./server: Permission denied"
  Blame blame = Blame::kWorker;
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
  std::string request_id;    // as JSON text; "" if there was none
  std::optional<bool> busy;  // a request begins or ends
  bool hung = false;         // it says that it hangs: WATCHDOG=trigger
};
struct StatusSaid {  // STATUS= on NOTIFY_SOCKET
  WorkerId worker;
  std::string text;
};
struct Sampled {  // outcome of a TakeSamples action
  std::vector<Sample> samples;
};
struct Probed {  // outcome of a TakeProbe action
  WorkerId worker;
  bool well = true;
  std::string detail;  // "connect 127.0.0.1:9101: Connection refused"
};
struct Examined {  // outcome of an Examine action
  WorkerId worker;
};
struct HookEnded {  // outcome of a RunHook action
  WorkerId worker;
  bool well = true;    // false: the step it stands before can't be done
  std::string reason;  // "its before-start hook exited with status 1"
};
struct Replace {  // by hand: this worker goes, when there is another one in its place
  WorkerId worker;
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
struct LoadSeen {               // while wants_load() says so, some times a second
  std::uint64_t queued = 0;     // connections that wait to be accepted, in all sockets
  std::optional<double> cores;  // CPUs that ready workers used lately; none: not known
};
struct Reconfigured {  // some options changed while running
  Config config;
};

}  // namespace event

using Event =
    std::variant<event::Started, event::TimerDue, event::Spawned, event::SpawnFailed, event::Exited,
                 event::Acked, event::Pinged, event::StatusSaid, event::Sampled, event::Probed,
                 event::Examined, event::HookEnded, event::Replace, event::SetNumber,
                 event::Upgrade, event::RollBack, event::Stop, event::Quit, event::SignalAll,
                 event::LoadSeen, event::Reconfigured>;

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
struct Scaled {
  std::uint32_t from;
  std::uint32_t to;
  std::string reason;
};
struct GaveUp {
  std::uint32_t deaths;
};
struct Recovered {};  // a failed pool has a worker again, or was told to try
struct Condemned {
  WorkerId worker;
  Version version;
  Ailment ailment;
  std::string complaint;
  std::string request_id;  // the last one it told of; JSON text
  bool killed;             // a hard limit: it is killed at once
};
struct Ailing {
  WorkerId worker;
  Version version;
  Ailment ailment;
  std::string complaint;
};
struct Recycling {  // its replacement starts
  WorkerId worker;
  Version version;
  Ailment ailment;
  std::string complaint;
};
struct Recycled {  // its replacement is ready; it is told to stop
  std::vector<WorkerId> workers;
};
struct ProbeFailed {
  WorkerId worker;
  std::string detail;
  std::uint32_t failures;
  std::uint32_t most;
};
struct SlotPaused {
  Slot slot;
  std::uint32_t deaths;
  Duration within;
  std::optional<Duration> pause;  // none: it was given up
  std::uint32_t retry;
  std::uint32_t retries;
};
struct SlotResumed {
  Slot slot;
};
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
                 note::RollBackRefused, note::RollBackIncomplete, note::NumberChanged, note::Scaled,
                 note::GaveUp, note::Recovered, note::Condemned, note::Ailing, note::Recycling,
                 note::Recycled, note::ProbeFailed, note::SlotPaused, note::SlotResumed,
                 note::Stopping, note::Gone>;

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
struct TakeSamples {
  std::vector<WorkerId> workers;
};
struct TakeProbe {
  WorkerId worker;
};
struct Examine {  // a hung worker, before it is told to stop
  WorkerId worker;
};
struct RunHook {  // Spawn or SendSignal follows when it is over
  WorkerId worker;
  Version version;
  Hook hook = Hook::kNone;
};
struct EndHook {  // nobody waits for it any more
  WorkerId worker;
};
struct Leave {  // the master's word to the guard
  int exit_code = 0;
};

using Action =
    std::variant<Spawn, SendSignal, Note, TakeSamples, TakeProbe, Examine, RunHook, EndHook, Leave>;

}  // namespace einhorn::pool
