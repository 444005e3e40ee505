#include "client/deadline.h"

#include <algorithm>
#include <limits>

namespace einhorn::client {

using std::chrono::steady_clock;

Deadline Deadline::after(Duration duration) {
  // A far deadline must not overflow the clock's own range.
  constexpr Duration kMost = std::chrono::hours(24 * 365 * 10);
  Deadline deadline;
  deadline.at_ = steady_clock::now() + std::clamp(duration, Duration::zero(), kMost);
  return deadline;
}

Deadline Deadline::earlier(const Deadline& one, const Deadline& other) {
  if (!one.at_.has_value()) {
    return other;
  }
  return other.at_.has_value() && *other.at_ < *one.at_ ? other : one;
}

std::optional<Duration> Deadline::remaining() const {
  if (!at_.has_value()) {
    return std::nullopt;
  }
  return std::max(Duration::zero(),
                  std::chrono::duration_cast<Duration>(*at_ - steady_clock::now()));
}

bool Deadline::passed() const {
  const std::optional<Duration> left = remaining();
  return left.has_value() && *left == Duration::zero();
}

int Deadline::poll_milliseconds() const {
  const std::optional<Duration> left = remaining();
  if (!left.has_value()) {
    return -1;
  }
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(*left).count();
  return static_cast<int>(std::min<std::int64_t>(milliseconds, std::numeric_limits<int>::max()));
}

}  // namespace einhorn::client
