// How long a client is willing to wait.
#pragma once

#include <chrono>
#include <optional>

#include "base/instant.h"

namespace einhorn::client {

// A moment to give up at, or never. Taken once, so that many small waits share one deadline.
class Deadline {
 public:
  [[nodiscard]] static Deadline never() { return Deadline(); }
  // Contract: a `duration` below zero counts as zero.
  [[nodiscard]] static Deadline after(Duration duration);
  [[nodiscard]] static Deadline earlier(const Deadline& one, const Deadline& other);

  [[nodiscard]] bool passed() const;
  // For poll(2): -1 for never, 0 when it has passed, otherwise milliseconds, rounded up.
  [[nodiscard]] int poll_milliseconds() const;
  // What is left; none for never, zero when it has passed.
  [[nodiscard]] std::optional<Duration> remaining() const;

 private:
  std::optional<std::chrono::steady_clock::time_point> at_;
};

}  // namespace einhorn::client
