// What the pool is asked to do: the options that decide how workers live and die.
#pragma once

#include <cstdint>
#include <optional>

#include "base/instant.h"
#include "base/signals.h"
#include "pool/health.h"

namespace einhorn::pool {

// How a worker says that it is up.
enum class AckMode {
  kTimer,   // it has lived for `ack_delay`
  kManual,  // worker:ack on the command socket
  kNotify,  // READY=1 on NOTIFY_SOCKET
  kListen,  // it has called listen on a shared socket (interception)
};

struct Config {
  std::uint32_t number = 1;  // the target: how many workers
  AckMode ack_mode = AckMode::kTimer;
  Duration ack_delay = std::chrono::seconds{1};      // kTimer
  Duration ack_timeout = std::chrono::seconds{300};  // the other modes; zero: wait for ever
  std::optional<Duration> seconds;                   // -s: the least time between spin-ups
  std::uint32_t max_unacked = 1;                     // workers that are starting at a time
  // Whether max_unacked was asked for. If not, it paces upgrades and growth, but a worker that had
  // been up for a while is replaced at once.
  bool max_unacked_given = false;
  std::optional<std::uint32_t> max_upgrade_additional;
  std::optional<Duration> signal_timeout;  // -t: KILL that long after a stop signal
  std::optional<Duration> drain_timeout;   // the same, for workers of old versions only
  int stop_signal = SIGUSR2;
  std::uint32_t give_up = 0;  // consecutive deaths before ACK until the pool fails; 0: never

  std::uint32_t canary = 1;            // new workers that must prove a version first
  Duration canary_seconds{0};          // how long they must stay up
  std::uint32_t upgrade_failures = 3;  // failing new workers until a roll-back; 0: any number
  std::optional<Duration> upgrade_timeout;

  // Whether there are commands that a start, and a stop signal, waits for (pool/hook.h).
  bool hook_before_start = false;
  bool hook_before_stop = false;

  HealthRules health;  // heartbeats, limits, probes, flapping
  // Scaling by the queue (pool/scaling.h). workers_max 0: the number stays as it is.
  std::uint32_t workers_min = 0;
  std::uint32_t workers_max = 0;
  Duration scale_up_after = std::chrono::seconds{1};
  Duration scale_down_after = std::chrono::seconds{30};
};

}  // namespace einhorn::pool
