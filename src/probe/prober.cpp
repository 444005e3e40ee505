#include "probe/prober.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <deque>
#include <list>
#include <vector>

#include "probe/attempt.h"

namespace einhorn::probe {
namespace {

constexpr std::size_t kMostAtATime = 128;
constexpr std::size_t kMostWaiting = 100'000;
constexpr std::size_t kMostMessage = 16384;

class Prober {
 public:
  explicit Prober(int control) : control_(control) {}

  int run() {
    while (read_jobs()) {
      begin_waiting();
      wait();
      finish();
    }
    return 0;
  }

 private:
  // False: the master's end is closed.
  bool read_jobs() {
    std::array<char, kMostMessage> buffer{};
    for (;;) {
      const ssize_t count = ::recv(control_, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (count < 0) {
        return errno == EAGAIN || errno == EINTR;
      }
      if (count == 0) {
        return false;
      }
      std::optional<Job> job = parse_job({buffer.data(), static_cast<std::size_t>(count)});
      if (job && waiting_.size() < kMostWaiting) {
        waiting_.push_back(std::move(*job));
      }
    }
  }

  void begin_waiting() {
    while (!waiting_.empty() && attempts_.size() < kMostAtATime) {
      attempts_.emplace_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
  }

  // Until somebody has something to say, or is out of time.
  void wait() {
    std::vector<pollfd> asked = {{control_, POLLIN, 0}};
    int timeout = -1;
    const Attempt::Clock::time_point now = Attempt::Clock::now();
    for (const Attempt& attempt : attempts_) {
      asked.push_back({attempt.verdict() ? -1 : attempt.fd(), attempt.events(), 0});
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(attempt.deadline() - now).count();
      const int least = attempt.verdict() ? 0 : static_cast<int>(std::clamp<long>(left, 0, 60'000));
      timeout = timeout < 0 ? least : std::min(timeout, least);
    }
    if (::poll(asked.data(), asked.size(), timeout) <= 0) {
      return;
    }
    std::size_t at = 1;
    for (Attempt& attempt : attempts_) {
      if (asked[at++].revents != 0 && !attempt.verdict()) {
        attempt.on_ready();
      }
    }
  }

  void finish() {
    const Attempt::Clock::time_point now = Attempt::Clock::now();
    for (auto it = attempts_.begin(); it != attempts_.end();) {
      if (!it->verdict() && it->deadline() <= now) {
        it->on_timeout();
      }
      if (!it->verdict()) {
        ++it;
        continue;
      }
      const Verdict& verdict = *it->verdict();
      const std::string text = "PROBED=" + std::to_string(it->job().id) +
                               "\nwell=" + (verdict.well ? "1" : "0") +
                               "\ndetail=" + verdict.detail;
      // A master that does not read begins a probe whose answer is lost again.
      static_cast<void>(::send(control_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
      it = attempts_.erase(it);
    }
  }

  int control_;
  std::deque<Job> waiting_;
  std::list<Attempt> attempts_;
};

}  // namespace

int run_prober(int control) {
  struct stat status {};
  if (fstat(control, &status) != 0 || !S_ISSOCK(status.st_mode)) {
    return 1;  // this is for Einhorn's own use
  }
  ::fcntl(control, F_SETFD, FD_CLOEXEC);
  return Prober(control).run();
}

}  // namespace einhorn::probe
