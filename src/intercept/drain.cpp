#include "intercept/drain.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "intercept/ask.h"
#include "intercept/connections.h"
#include "intercept/processes.h"
#include "intercept/replace.h"

namespace einhorn::intercept {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kStackBytes = 512 * 1024;
constexpr milliseconds kFirstPause{2};
constexpr milliseconds kMostPause{100};
constexpr milliseconds kTryPause{5};
constexpr milliseconds kWakePause{100};
constexpr int kMostTries = 100;
// A thread that never sleeps has looked at all that it had when it has run for so long.
constexpr std::uint64_t kRestlessNs = 30'000'000;

int number_option(int socket, int name) {
  int value = 0;
  socklen_t length = sizeof(value);
  return getsockopt(socket, SOL_SOCKET, name, &value, &length) == 0 ? value : 0;
}

// Only what is in `kept` stays open, in this thread's table.
void close_others(const std::set<int>& kept) {
  unsigned from = 3;
  for (const int fd : kept) {
    if (fd < 3) {
      continue;
    }
    if (static_cast<unsigned>(fd) > from) {
      syscall(SYS_close_range, from, static_cast<unsigned>(fd) - 1, 0);
    }
    from = static_cast<unsigned>(fd) + 1;
  }
  syscall(SYS_close_range, from, ~0U, 0);
}

// The entry's key is the socket and its number in the program: so it gets that number here, for a
// moment. Whatever had it comes back.
bool remove_entry(os::UniqueFd epoll, int number, int socket) {
  if (epoll.get() == number) {
    os::UniqueFd moved(fcntl(epoll.get(), F_DUPFD_CLOEXEC, 3));
    epoll = std::move(moved);
  }
  if (socket == number) {
    return epoll_ctl(epoll.get(), EPOLL_CTL_DEL, number, nullptr) == 0;
  }
  const os::UniqueFd before(fcntl(number, F_DUPFD_CLOEXEC, 3));
  if (dup3(socket, number, O_CLOEXEC) < 0) {
    return false;
  }
  const bool removed = epoll_ctl(epoll.get(), EPOLL_CTL_DEL, number, nullptr) == 0;
  const int why = errno;
  if (before) {
    dup3(before.get(), number, O_CLOEXEC);
  } else {
    close(number);
  }
  errno = why;
  return removed || why == ENOENT;
}

os::UniqueFd descriptor_of(pid_t process, int fd) {
  const os::UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  return os::UniqueFd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0)));
}

void connect_once(int idle) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(idle, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return;
  }
  const os::UniqueFd client(
      socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  static_cast<void>(connect(client.get(), reinterpret_cast<const sockaddr*>(&address), length));
}

}  // namespace

struct Drains::Drain {
  Asker worker;
  pid_t pid = 0;
  long own_filters = 0;
  Reports* reports = nullptr;
  std::vector<DrainSocket> sockets;  // numbers that are ours in the thread's table as well

  std::mutex mutex;
  std::condition_variable changed;
  bool apart = false;  // the thread has a table of its own
  bool signaled = false;
  bool ended = false;
  bool done = false;  // and said to be

  // The thread's own.
  std::vector<int> numbers;
  std::vector<Shared> shared;
  std::vector<os::UniqueFd> idle;
  std::set<std::string> told;

  void run() {
    set_apart();
    const std::size_t held = connections_held();
    take_away(group_of(pid));
    watch(held);
    {
      const std::lock_guard lock(mutex);
      done = true;
      reports->drained(worker.worker);
    }
    wake_until_gone();
  }

  void set_apart() {
    const bool alone = unshare(CLONE_FILES) == 0;
    std::set<int> kept{reports->socket()};
    for (const DrainSocket& each : sockets) {
      numbers.push_back(each.fd.get());
      shared.push_back(each.shared);
      kept.insert(each.fd.get());
    }
    if (alone) {
      close_others(kept);
    }
    const std::lock_guard lock(mutex);
    apart = true;
    changed.notify_all();
  }

  // True: it is over, by one of these.
  bool pause(milliseconds time, bool Drain::*reason) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, time, [&] { return ended || this->*reason; });
  }

  void tell(const std::string& text) {
    if (told.insert(text).second) {
      reports->error("drain_failed", "Worker " + std::to_string(worker.slot) +
                                         " can't be drained before its stop signal: " + text);
    }
  }

  int index_of(std::uint64_t inode) const {
    for (std::size_t i = 0; i < sockets.size(); ++i) {
      if (sockets[i].identity.second == inode) {
        return static_cast<int>(i);
      }
    }
    return -1;
  }

  std::set<std::uint64_t> inodes() const {
    std::set<std::uint64_t> all;
    for (const DrainSocket& each : sockets) {
      all.insert(each.identity.second);
    }
    return all;
  }

  // Entries of epoll sets that are gone now, by number in the process.
  std::set<int> leave_epoll(pid_t process, const std::vector<EpollEntry>& entries) {
    std::set<int> left;
    for (const EpollEntry& entry : entries) {
      const int index = index_of(entry.inode);
      os::UniqueFd epoll = descriptor_of(process, entry.epoll);
      if (!epoll) {
        tell(std::string("pidfd_getfd: ") + strerrordesc_np(errno));
      } else if (!remove_entry(std::move(epoll), entry.fd, numbers[std::size_t(index)])) {
        tell(std::string("epoll_ctl: ") + strerrordesc_np(errno));
      } else {
        left.insert(entry.fd);
      }
    }
    return left;
  }

  void take_away(const std::vector<pid_t>& processes) {
    for (const pid_t process : processes) {
      const Holdings holdings = holdings_of(process, inodes());
      const std::set<int> polled = leave_epoll(process, holdings.epoll_entries);
      std::vector<ToReplace> rest;
      for (const auto& [fd, inode] : holdings.sockets) {
        const int index = index_of(inode);
        // One that is in a set under another number is polled there too.
        const bool in_set = std::any_of(
            holdings.epoll_entries.begin(), holdings.epoll_entries.end(),
            [&, wanted = inode](const EpollEntry& entry) { return entry.inode == wanted; });
        if (index < 0 || in_set || polled.contains(fd)) {
          continue;
        }
        const int ours = numbers[std::size_t(index)];
        ToReplace each;
        each.fd = fd;
        each.domain = number_option(ours, SO_DOMAIN);
        each.type = number_option(ours, SO_TYPE);
        each.nonblocking = (fcntl(ours, F_GETFL) & O_NONBLOCK) != 0;
        each.close_on_exec = closes_on_exec(process, fd);
        rest.push_back(each);
      }
      if (!rest.empty()) {
        replace(process, rest);
      }
    }
  }

  void replace(pid_t process, const std::vector<ToReplace>& rest) {
    for (int tries = 0; tries < kMostTries; ++tries) {
      Replaced replaced = replace_sockets(process, rest, own_filters);
      for (os::UniqueFd& fd : replaced.idle) {
        idle.push_back(std::move(fd));
      }
      if (replaced.failed.empty()) {
        return;
      }
      if (!replaced.try_again || tries + 1 == kMostTries) {
        tell("process " + std::to_string(process) + ": " + replaced.failed);
        return;
      }
      if (pause(kTryPause, &Drain::signaled)) {
        return;
      }
    }
  }

  std::size_t connections_held() {
    const std::optional<std::set<std::uint64_t>> all = connections_of(shared);
    std::size_t held = 0;
    for (const pid_t process : processes_of(pid)) {
      const Holdings holdings = holdings_of(process, inodes());
      held += static_cast<std::size_t>(
          std::count_if(holdings.sockets.begin(), holdings.sockets.end(),
                        [&](const auto& each) { return all && all->contains(each.second); }));
    }
    return held;
  }

  // Until nothing of the worker's is connected, or it has been told to stop anyway. `left`: what it
  // had when this began.
  void watch(std::size_t left) {
    milliseconds interval = kFirstPause;
    std::map<pid_t, std::uint64_t> awake_since;  // by thread, how long it had run then
    int quiet = 0;
    for (;;) {
      // First the list, then whose they are: what is accepted in between shows the next time.
      const std::optional<std::set<std::uint64_t>> all = connections_of(shared);
      if (!all) {
        tell(std::string("sock_diag: ") + strerrordesc_np(errno));
        return;
      }
      const std::size_t before = std::exchange(left, 0);
      bool settled = true;
      for (const pid_t process : processes_of(pid)) {
        const Holdings holdings = holdings_of(process, inodes());
        left += static_cast<std::size_t>(
            std::count_if(holdings.sockets.begin(), holdings.sockets.end(),
                          [&](const auto& each) { return all->contains(each.second); }));
        // On a busy machine a thread that was woken for a connection may not have run yet.
        for (const auto& [task, ran] : awake_tasks_of(process)) {
          settled =
              settled && ran >= awake_since.try_emplace(task, ran).first->second + kRestlessNs;
        }
        // Some programs put their listeners in again by and by.
        leave_epoll(process, holdings.epoll_entries);
      }
      {
        const std::lock_guard lock(mutex);
        if (signaled) {
          left = std::max(left, before);  // by now it may have gone, and its connections with it
          break;
        }
      }
      quiet = left == 0 ? quiet + 1 : 0;
      if (quiet >= 2 && settled) {
        return;
      }
      if (pause(quiet > 0 ? kFirstPause : interval, &Drain::signaled)) {
        break;
      }
      interval = std::min(interval * 2, kMostPause);
    }
    const std::lock_guard lock(mutex);
    // Also if it was quick to go: both words may have come by now.
    if (left > 0 && signaled) {
      reports->info("drain_incomplete", "Worker " + std::to_string(worker.slot) + " still has " +
                                            std::to_string(left) +
                                            (left == 1 ? " connection" : " connections") +
                                            " when it gets its stop signal");
    }
  }

  void wake_until_gone() {
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [this] { return signaled || ended; });
    }
    while (!idle.empty() && !pause(kWakePause, &Drain::ended)) {
      for (const os::UniqueFd& each : idle) {
        connect_once(each.get());
      }
    }
    idle.clear();
  }
};

void* Drains::thread(void* argument) {
  const std::unique_ptr<std::shared_ptr<Drain>> drain(
      static_cast<std::shared_ptr<Drain>*>(argument));
  (*drain)->run();
  return nullptr;
}

void Drains::begin(const Asker& worker, pid_t pid) {
  if (pid <= 0) {
    return;
  }
  if (const auto known = drains_.find(worker.worker); known != drains_.end()) {
    const std::lock_guard lock(known->second->mutex);
    if (known->second->done) {
      reports_.drained(worker.worker);  // another signal, for a worker that has drained
    }
    return;
  }
  auto drain = std::make_shared<Drain>();
  drain->worker = worker;
  drain->pid = pid;
  // As many as it was born with, and whoever started us has none that it has not.
  drain->own_filters = filters_of(getpid()) + (watched_by_filter_ ? 1 : 0);
  drain->reports = &reports_;
  drain->sockets = desk_.sockets();
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t id{};
  auto argument = std::make_unique<std::shared_ptr<Drain>>(drain);
  const bool started = pthread_create(&id, &attributes, &Drains::thread, argument.get()) == 0;
  pthread_attr_destroy(&attributes);
  if (!started) {
    reports_.error("drain_failed", "There is no thread to be had to drain a worker");
    reports_.drained(worker.worker);
    return;
  }
  static_cast<void>(argument.release());
  drains_[worker.worker] = drain;
  // It has its own numbers for them then; ours are closed here.
  std::unique_lock lock(drain->mutex);
  drain->changed.wait(lock, [&] { return drain->apart; });
  for (DrainSocket& each : drain->sockets) {
    each.fd.reset();
  }
}

void Drains::signaled(Epoch worker) {
  if (const auto found = drains_.find(worker); found != drains_.end()) {
    const std::lock_guard lock(found->second->mutex);
    found->second->signaled = true;
    found->second->changed.notify_all();
  }
}

void Drains::ended(Epoch worker) {
  if (const auto found = drains_.find(worker); found != drains_.end()) {
    {
      const std::lock_guard lock(found->second->mutex);
      found->second->ended = true;
      found->second->changed.notify_all();
    }
    drains_.erase(found);
  }
}

}  // namespace einhorn::intercept
