#include "client/loop.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

namespace einhorn::client {

double wall_seconds() {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

Result<std::unique_ptr<Loop>> Loop::create() {
  os::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) {
    return Error{errno, "epoll_create1", ""};
  }
  std::unique_ptr<Loop> loop(new Loop(std::move(epoll)));
  loop->read_clock();
  return loop;
}

void Loop::read_clock() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  now_ = Instant{Duration{std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec}};
}

void Loop::watch(int fd, bool read, bool write, Handler handler) {
  const bool known = handlers_.contains(fd);
  handlers_[fd] = std::make_shared<Handler>(std::move(handler));
  epoll_event event{};
  event.data.fd = fd;
  event.events = (read ? EPOLLIN : 0U) | (write ? EPOLLOUT : 0U);
  epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

void Loop::change(int fd, bool read, bool write) {
  epoll_event event{};
  event.data.fd = fd;
  event.events = (read ? EPOLLIN : 0U) | (write ? EPOLLOUT : 0U);
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::forget(int fd) {
  if (handlers_.erase(fd) > 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }
}

Loop::TimerId Loop::after(Duration delay, std::function<void()> action) {
  const TimerId id = next_timer_++;
  const Instant at = now_ + delay;
  timers_.emplace(std::pair(at, id), std::move(action));
  due_[id] = at;
  return id;
}

void Loop::cancel(TimerId timer) {
  if (const auto found = due_.find(timer); found != due_.end()) {
    timers_.erase({found->second, timer});
    due_.erase(found);
  }
}

Status Loop::catch_signals(std::initializer_list<int> signals, std::function<void(int)> handler) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) {
    sigaddset(&set, signal);
  }
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) {
    return Error{errno, "sigprocmask", ""};
  }
  signals_ = os::UniqueFd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) {
    return Error{errno, "signalfd", ""};
  }
  watch(signals_.get(), true, false, [this, handler = std::move(handler)](Ready) {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      handler(static_cast<int>(info.ssi_signo));
    }
  });
  return Ok{};
}

void Loop::run() {
  while (!stopped_) {
    turn();
  }
}

void Loop::turn() {
  std::array<epoll_event, 64> events;
  int timeout = -1;
  if (!timers_.empty()) {
    const std::int64_t left = (timers_.begin()->first.first - now_).count();
    timeout =
        left <= 0
            ? 0
            : static_cast<int>(std::min<std::int64_t>((left + 999'999) / 1'000'000, 3'600'000));
  }
  const int count =
      epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
  read_clock();
  for (int i = 0; i < count && !stopped_; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    const auto found = handlers_.find(event.data.fd);
    if (found == handlers_.end()) {
      continue;
    }
    const std::shared_ptr<Handler> handler = found->second;  // it may forget itself
    (*handler)({(event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0,
                (event.events & (EPOLLOUT | EPOLLERR)) != 0});
  }
  while (!stopped_ && !timers_.empty() && timers_.begin()->first.first <= now_) {
    const auto action = std::move(timers_.begin()->second);
    due_.erase(timers_.begin()->first.second);
    timers_.erase(timers_.begin());
    action();
  }
}

}  // namespace einhorn::client
