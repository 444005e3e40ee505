// Scaling by the queue (`--workers MIN:MAX`): how many workers there should be, from how many
// connections wait in the listening sockets. Pure, like the pool that owns it.
//
// Up: when at every sample for `scale_up_after` at least half a connection a worker has waited
// (and one at least), and nobody is starting. By half of what there is if a whole connection a
// worker waits, by one otherwise: a burst is met in a few steps, a slight lack by a slight change.
// Down: by one, when nearly nothing has waited for `scale_down_after` and those who stay would be
// less than kBusy busy with the work there is. Workers that wait for something else than the CPU
// look idle though they are needed: a removal that has to be taken back makes the next one wait
// twice as long, up to kLongestHold; long enough without that, half as long again.
// Invariant: what it answers lies between MIN and MAX.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/instant.h"
#include "pool/config.h"

namespace einhorn::pool {

class Scaling {
 public:
  // The share of a CPU that a worker may use on the average after a removal.
  static constexpr double kBusy = 0.7;
  static constexpr Duration kLongestHold = std::chrono::minutes{10};

  struct Seen {
    std::uint64_t queued = 0;     // connections that wait, in all sockets together
    std::optional<double> cores;  // CPUs that the ready workers used lately; none: not known
    std::uint32_t number = 1;     // the target
    std::uint32_t starting = 0;   // workers that are not up yet
    bool upgrading = false;       // then nobody is removed
  };
  struct Decision {
    std::uint32_t number = 1;
    std::string reason;  // "18 connections have waited for 1 s"
  };

  // Call for every sample, some a second.
  [[nodiscard]] std::optional<Decision> decide(const Config& config, const Seen& seen, Instant now);

 private:
  void forget_quiet(Instant now);
  [[nodiscard]] std::optional<Decision> up(const Config& config, const Seen& seen, Instant now);
  [[nodiscard]] std::optional<Decision> down(const Config& config, const Seen& seen, Instant now);

  std::optional<Instant> queue_since_;
  std::optional<Instant> quiet_since_;
  std::uint32_t samples_ = 0;         // since then
  std::uint32_t queued_samples_ = 0;  // of them, with somebody waiting
  std::optional<double> most_cores_;
  std::optional<Duration> hold_;  // instead of scale_down_after, after removals that were mistakes
  std::optional<Instant> removed_at_;
  std::optional<Instant> mistake_at_;  // or when the hold was last made shorter
};

}  // namespace einhorn::pool
