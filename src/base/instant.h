// Time as a value that somebody hands in.
//
// `Instant` is a point on the kernel's monotonic clock, in nanoseconds. The clock type has no
// `now()`, so no code can read it: only `src/os` makes Instants, once a turn of the loop, and the
// simulator makes its own. Wall-clock time exists for display only, as `WallTime`.
#pragma once

#include <chrono>
#include <cstdint>

namespace einhorn {

struct MonotonicClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::duration<rep, period>;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};

using Duration = MonotonicClock::duration;
using Instant = MonotonicClock::time_point;

// Nanoseconds since 1970-01-01 00:00:00 UTC. For people only; nothing is decided by it.
struct WallTime {
  std::int64_t nanoseconds = 0;
  friend auto operator<=>(const WallTime&, const WallTime&) = default;
};

// How far wall time is ahead of the monotonic clock. Kept for a pool's whole life (so that a time
// shown twice reads the same twice) and renewed only when the wall clock was stepped.
struct WallOffset {
  std::int64_t nanoseconds = 0;
  friend auto operator<=>(const WallOffset&, const WallOffset&) = default;
};

[[nodiscard]] constexpr WallTime to_wall(Instant at, WallOffset offset) {
  return WallTime{at.time_since_epoch().count() + offset.nanoseconds};
}

[[nodiscard]] constexpr Instant to_instant(WallTime at, WallOffset offset) {
  return Instant{Duration{at.nanoseconds - offset.nanoseconds}};
}

// Seconds as people write them, to nanoseconds; saturates at +-292 years.
[[nodiscard]] constexpr Duration from_seconds(double seconds) {
  constexpr double kMost = 9.2e9;
  if (seconds > kMost) {
    seconds = kMost;
  }
  if (seconds < -kMost) {
    seconds = -kMost;
  }
  return Duration{static_cast<std::int64_t>(seconds * 1e9)};
}

[[nodiscard]] constexpr double to_seconds(Duration duration) {
  return static_cast<double>(duration.count()) / 1e9;
}

}  // namespace einhorn
