// The loop of a program that watches pools: descriptors that get ready, and moments that come. One
// thread.
//
// A handler may do anything, also forget its own descriptor or add others: what was forgotten is not
// called any more. Time comes from here alone, once a turn.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "base/instant.h"
#include "base/result.h"
#include "os/unique_fd.h"

namespace einhorn::client {

// Seconds since 1970.
[[nodiscard]] double wall_seconds();

class Loop {
 public:
  struct Ready {
    bool readable = false;  // also: end of file, error
    bool writable = false;
  };
  using Handler = std::function<void(Ready)>;
  using TimerId = std::uint64_t;

  static Result<std::unique_ptr<Loop>> create();

  // Adds, or changes what is waited for. The descriptor stays the caller's.
  void watch(int fd, bool read, bool write, Handler handler);
  void change(int fd, bool read, bool write);
  void forget(int fd);

  TimerId after(Duration delay, std::function<void()> action);
  void cancel(TimerId timer);

  // Signals that come as calls from here on; all of them are blocked.
  Status catch_signals(std::initializer_list<int> signals, std::function<void(int)> handler);

  void run();
  void stop() { stopped_ = true; }
  [[nodiscard]] Instant now() const { return now_; }

 private:
  explicit Loop(os::UniqueFd epoll) : epoll_(std::move(epoll)) {}
  void turn();
  void read_clock();

  os::UniqueFd epoll_;
  os::UniqueFd signals_;
  std::map<int, std::shared_ptr<Handler>> handlers_;
  std::map<std::pair<Instant, TimerId>, std::function<void()>> timers_;
  std::map<TimerId, Instant> due_;
  TimerId next_timer_ = 1;
  Instant now_;
  bool stopped_ = false;
};

}  // namespace einhorn::client
