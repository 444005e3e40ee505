// What the pool scales by (`--workers MIN:MAX`), looked at some times a second as long as it wants
// that: how many connections wait in the listening sockets, and from time to time how many CPUs the
// ready workers use. Owns nothing; a failed look is one that saw nothing.
#pragma once

#include <map>
#include <optional>

#include "base/ids.h"
#include "base/instant.h"
#include "master/roster.h"
#include "os/kernel.h"
#include "pool/pool.h"

namespace einhorn::master {

class LoadWatch {
 public:
  static constexpr Duration kEvery = std::chrono::milliseconds{250};
  static constexpr Duration kCpuEvery = std::chrono::seconds{5};

  explicit LoadWatch(os::Kernel& kernel) : kernel_(kernel) {}

  // When to look; none: the pool does not want to know.
  [[nodiscard]] std::optional<Instant> next_deadline(const pool::Pool& pool) const;
  // What is seen, if it is time to look.
  [[nodiscard]] std::optional<pool::event::LoadSeen> look(
      const pool::Pool& pool, const Roster& roster, const std::map<std::uint32_t, int>& listeners,
      Instant now);

 private:
  std::optional<double> cores(const pool::Pool& pool, const Roster& roster, Instant now);

  os::Kernel& kernel_;
  std::optional<Instant> looked_at_;
  std::optional<Instant> cpu_at_;
  std::map<Epoch, Duration> cpu_;  // of each ready worker, then
};

}  // namespace einhorn::master
