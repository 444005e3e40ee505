// One worker, as the pool knows it.
//
//   Spawning --Spawned--> Starting --ACK--> Ready
//      |                     |                |
//      |                  stop signal      stop signal
//      |                     v                v
//      +--(stop wanted)--> Stopping <---------+        any --Exited--> gone
//
// Spawning  a Spawn action was given, its outcome is not known yet
// Starting  it runs and has not been ACKed
// Ready     it was ACKed
// Stopping  it was sent a stop signal (or KILL) by the pool; whether it was ACKed is kept
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/instant.h"
#include "base/signals.h"

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
  std::optional<Instant> pinged_at;
  std::string pinged_request_id;  // JSON text
  std::string status_text;

  [[nodiscard]] bool acked() const { return acked_at.has_value(); }
  [[nodiscard]] bool stopping() const { return state == WorkerState::kStopping; }
};

}  // namespace einhorn::pool
