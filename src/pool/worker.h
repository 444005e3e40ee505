// One worker, as the pool knows it.
//
//   Spawning --Spawned--> Starting --ACK--> Ready
//      |                     |                |
//      |                  stop signal      stop signal
//      |                     v                v
//      +--(stop wanted)--> Stopping <---------+        any --Exited--> gone
//
// Spawning  a Spawn action was given, its outcome is not known yet; or, before that, its hook
//           before-start runs
// Starting  it runs and has not been ACKed
// Ready     it was ACKed
// Stopping  it was sent a stop signal (or KILL) by the pool; whether it was ACKed is kept. Also: it
//           is condemned (pool/health.h), and the stop signal waits until it was examined; or its
//           hook before-stop runs, and the stop signal waits for that
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "base/signals.h"
#include "pool/health.h"
#include "pool/hook.h"

namespace einhorn::pool {

enum class WorkerState { kSpawning, kStarting, kReady, kStopping };
// "spawning", "starting", "ready", "stopping": the same word in log, state, metric and document.
[[nodiscard]] std::string_view name(WorkerState state);

struct Worker {
  WorkerId id;
  Version version;
  WorkerState state = WorkerState::kSpawning;
  Instant spawned_at;
  std::optional<Instant> acked_at;
  SignalSet signaled;  // what the pool sent it
  std::optional<Instant> last_signaled_at;
  bool missed_ack = false;   // why it is stopping: it counts as a death before ACK
  bool stop_wanted = false;  // while Spawning: stop it as soon as it runs
  int stop_with = 0;         // and with which signal; 0: the pool's stop signal
  Hook hook = Hook::kNone;   // runs, and it is waited for: before the start or the stop signal
  std::optional<Instant> pinged_at;
  std::string pinged_request_id;  // JSON text
  std::string status_text;

  std::string last_request_id;  // of the last ping that had one; JSON text
  std::uint64_t requests = 0;   // that pings told of
  std::vector<BusyRequest> busy;
  Ailment ailment = Ailment::kNone;
  std::string complaint;  // the ailment in words
  std::optional<Instant> ailing_since;
  bool condemned = false;  // it does not count any more, and was replaced at once
  bool examining = false;  // condemned; its stop signal comes when it was examined
  bool recycling = false;  // its replacement is on the way, or there and this one stops

  [[nodiscard]] bool acked() const { return acked_at.has_value(); }
  [[nodiscard]] bool stopping() const { return state == WorkerState::kStopping; }
};

}  // namespace einhorn::pool
