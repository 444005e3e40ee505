#include "capture/reader.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/key_values.h"
#include "base/numbers.h"
#include "capture/output.h"
#include "capture/tail.h"
#include "os/linux/linux_kernel.h"
#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::capture {
namespace {

constexpr std::size_t kMostBatch = 1u << 20u;
constexpr std::size_t kMostRemembered = 64;  // workers whose pipes are closed, for their last lines
constexpr int kPatienceMs = 50;              // for the output, before lines are taken into memory
constexpr int kTickMs = 200;                 // while something is to be done later
constexpr int kFinishPatienceMs = 1500;
constexpr Duration kUnfinished = std::chrono::seconds{1};  // a line that has not ended
constexpr Duration kTellEvery = std::chrono::seconds{1};
constexpr int kOftenFull = 8;    // rounds
constexpr int kMostDrains = 64;  // of one worker's pipes, before its last lines are told

struct Worker;

struct Source {
  os::UniqueFd pipe;
  Stream stream = Stream::kOut;
  Worker* worker = nullptr;
  LineCutter cutter;
  std::size_t most_left = 0;       // of a line that has not ended, in the pipe
  std::size_t most_seen = 0;       // at a time: not all of it, so that its writer goes on meanwhile
  int full = 0;                    // so often in a row there was more
  bool ready = false;              // there may be something
  bool hung_up = false;            // nobody can write to it any more
  std::optional<Instant> left_at;  // when a beginning of a line was left in it
  std::size_t taken = 0;           // to be taken out once it is written
};

struct Worker {
  Author author;
  std::array<Source, 2> sources;
  Tail tail;
  std::uint64_t dropped = 0;  // not said yet
};

class Reader {
 public:
  Reader(std::unique_ptr<os::LinuxKernel> kernel, int control)
      : kernel_(std::move(kernel)), control_(control), epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

  int run() {
    std::array<int, 2> peek{};
    nothing_.reset(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    epoll_event line{EPOLLIN, {nullptr}};
    if (!epoll_ || !nothing_ || pipe2(peek.data(), O_CLOEXEC | O_NONBLOCK) != 0 ||
        epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, control_, &line) != 0) {
      return 1;
    }
    fcntl(peek[1], F_SETPIPE_SZ, static_cast<int>(kMostBatch));  // or else what there is
    peek_ = {os::UniqueFd(peek[0]), os::UniqueFd(peek[1])};
    bytes_.resize(kMostBatch);
    while (!leaving_ && (control_ >= 0 || !workers_.empty())) {
      wait();
      hear();
      pump(nullptr);
      tell();
      over_.clear();
    }
    if (output_) {
      output_->written(kFinishPatienceMs);
    }
    return 0;
  }

 private:
  // --- waiting
  void wait() {
    std::array<epoll_event, 256> events;
    const bool later = unfinished_ > 0 || untold_ || finishing_ || drops_;
    const int count = os::retry([&] {
      return epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                        !ready_.empty() ? 0 : (later ? kTickMs : -1));
    });
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events.at(static_cast<std::size_t>(i));
      if (event.data.ptr == nullptr) {
        heard_ = true;
        continue;
      }
      auto* source = static_cast<Source*>(event.data.ptr);
      source->hung_up |= (event.events & (EPOLLHUP | EPOLLERR)) != 0;
      mark(source);
    }
    now_ = kernel_->now();
    if (unfinished_ > 0) {
      for (auto& [epoch, worker] : workers_) {
        for (Source& source : worker->sources) {
          if (source.left_at && now_ - *source.left_at >= kUnfinished) {
            mark(&source);
          }
        }
      }
    }
  }

  void mark(Source* source) {
    if (!source->ready) {
      source->ready = true;
      ready_.push_back(source);
    }
  }

  // --- the master
  void hear() {
    if (!std::exchange(heard_, false)) {
      return;
    }
    while (control_ >= 0 && !leaving_) {
      os::Message message = kernel_->receive(control_);
      if (message.kind == os::Transfer::Kind::kWouldBlock) {
        return;
      }
      if (message.kind == os::Transfer::Kind::kClosed) {
        os::close_descriptor(std::exchange(control_, -1));
        return;
      }
      std::vector<os::UniqueFd> fds;
      for (const int fd : message.fds) {
        fds.emplace_back(fd);
      }
      on_message(key_values(message.text), std::move(fds));
    }
  }

  void on_message(const KeyValues& lines, std::vector<os::UniqueFd> fds) {
    if (lines.empty()) {
      return;
    }
    const auto& [verb, value] = lines[0];
    if (verb == "SETTINGS" && !output_) {
      output_.emplace(std::string(value_of(lines, "file")));
      format_.emplace(value_of(lines, "json") == "1", output_->most_line());
      tell_failed();
    } else if (verb == "PIPES" && fds.size() == 2) {
      add(lines, std::move(fds));
    } else if (verb == "TAIL") {
      tell_tail(number_of(value));
    } else if (verb == "REOPEN" && output_) {
      output_->reopen();
      output_->written(kPatienceMs);
      tell_failed();
    } else if (verb == "FINISH") {
      finishing_ = true;
      for (auto& [epoch, worker] : workers_) {
        for (Source& source : worker->sources) {
          mark(&source);
        }
      }
    } else if (verb == "LEAVE") {
      leaving_ = true;
    }
  }

  // One that is known already stays as it is: a new master tells of all that it has.
  void add(const KeyValues& lines, std::vector<os::UniqueFd> fds) {
    Author author;
    author.epoch = number_of(value_of(lines, "PIPES"));
    author.index = static_cast<std::uint32_t>(number_of(value_of(lines, "index")));
    author.version = number_of(value_of(lines, "version"));
    author.pid = static_cast<std::int32_t>(number_of(value_of(lines, "pid")));
    std::unique_ptr<Worker>& worker = workers_[author.epoch];
    if (worker) {
      return;
    }
    worker = std::make_unique<Worker>();
    worker->author = author;
    for (std::size_t i = 0; i < worker->sources.size(); ++i) {
      Source& source = worker->sources.at(i);
      source.pipe = std::move(fds.at(i));
      source.stream = i == 0 ? Stream::kOut : Stream::kError;
      source.worker = worker.get();
      measure(source);
      epoll_event event{EPOLLIN | EPOLLET, {&source}};
      if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, source.pipe.get(), &event) != 0) {
        source.pipe.reset();
      } else {
        mark(&source);
      }
    }
  }

  static void measure(Source& source) {
    const int size = fcntl(source.pipe.get(), F_GETPIPE_SZ);
    const std::size_t half = size > 0 ? static_cast<std::size_t>(size) / 2 : 0;
    source.most_left = std::min(half, kMostLine);
    source.most_seen = std::clamp<std::size_t>(half, PIPE_BUF, kMostBatch);
    if (source.most_seen <= source.most_left) {
      source.most_seen = kMostBatch;
    }
  }

  // Who writes much gets more room: each turn costs the same, however much there is. Not everybody
  // from the start, as users have a quota.
  static void widen(Source& source) {
    const int size = fcntl(source.pipe.get(), F_GETPIPE_SZ);
    if (size > 0 && static_cast<std::size_t>(size) < kMostBatch &&
        fcntl(source.pipe.get(), F_SETPIPE_SZ, 2 * size) > 0) {
      measure(source);
    }
  }

  void tell_tail(std::uint64_t epoch) {
    std::string said;
    if (const auto found = workers_.find(epoch); found != workers_.end()) {
      Worker* const worker = found->second.get();
      for (Source& source : worker->sources) {
        mark(&source);
      }
      pump(worker);
      said = worker->tail.message();
    } else {
      for (const auto& [gone, message] : remembered_) {
        if (gone == epoch) {
          said = message;
        }
      }
    }
    send("TAIL=" + std::to_string(epoch) + said);
  }

  void tell_failed() {
    if (const std::optional<Error> failed = output_->failed()) {
      send("FAILED=" + failed->message());
    }
  }

  void tell() {
    if (const std::uint64_t lost = output_ ? output_->take_lost() : 0; lost > 0) {
      dropped_ += lost;
      untold_ = true;
    }
    say_dropped();
    if (untold_ && now_ - told_at_ >= kTellEvery) {
      untold_ = false;
      told_at_ = now_;
      send("DROPPED=" + std::to_string(dropped_));
    }
    if (finishing_ && ready_.empty()) {
      finishing_ = false;
      if (output_) {
        output_->written(kFinishPatienceMs);
      }
      send("FINISHED=1");
    }
  }

  // What finds no room is lost: the master asks with a deadline, and a GONE that it misses is said
  // again when it tells of its pipes.
  void send(const std::string& text) {
    if (control_ >= 0) {
      kernel_->send(control_, text, {});
    }
  }

  // --- lines
  // Everything that is ready; of one worker alone, until nothing is left.
  void pump(Worker* only) {
    for (int round = 0; output_ && round < (only != nullptr ? kMostDrains : 1); ++round) {
      std::vector<Source*> looked;
      for (Source* source : std::exchange(ready_, {})) {
        const bool now = (only == nullptr || source->worker == only) && batch_.size() < kMostBatch;
        if (!now) {
          ready_.push_back(source);
          continue;
        }
        source->ready = false;
        looked.push_back(source);
        look(*source);
      }
      if (looked.empty()) {
        return;
      }
      deliver();
      for (Source* source : looked) {
        take_out(*source);
      }
      for (Source* source : looked) {
        if (source->hung_up && !source->ready) {
          end(*source);
        }
      }
    }
  }

  void look(Source& source) {
    if (!source.pipe) {
      return;
    }
    const ssize_t there = os::retry([&] {
      return tee(source.pipe.get(), peek_[1].get(), source.most_seen, SPLICE_F_NONBLOCK);
    });
    source.hung_up |= there == 0;
    if (there <= 0) {
      return;
    }
    source.full = static_cast<std::size_t>(there) >= source.most_seen ? source.full + 1 : 0;
    if (source.full == kOftenFull) {
      source.full = 0;
      widen(source);
    }
    std::size_t count = 0;
    while (count < static_cast<std::size_t>(there)) {
      const ssize_t got = os::retry(
          [&] { return ::read(peek_[0].get(), bytes_.data() + count, bytes_.size() - count); });
      if (got <= 0) {
        break;
      }
      count += static_cast<std::size_t>(got);
    }
    const bool overdue = source.left_at && now_ - *source.left_at >= kUnfinished;
    const WallTime time = to_wall(now_, kernel_->wall_offset());
    source.taken =
        source.cutter.cut({bytes_.data(), count}, source.most_left, overdue || source.hung_up,
                          [&](const Line& line) { add_line(source, line, time); });
    unfinished_ -= source.left_at ? 1U : 0U;
    source.left_at.reset();
    if (source.taken < count && source.taken == 0) {
      source.left_at = now_;
      ++unfinished_;
    }
    if (source.taken > 0) {
      mark(&source);  // perhaps there is more
    }
  }

  void add_line(Source& source, const Line& line, WallTime time) {
    Worker& worker = *source.worker;
    worker.tail.add(source.stream, line.text);
    if (!format_) {
      return;
    }
    ++count_;
    format_->line(batch_, time, worker.author, source.stream, line);
    authors_.push_back(&worker);
  }

  void deliver() {
    say_dropped();
    if (batch_.empty()) {
      authors_.clear();
      return;
    }
    if (!output_->put(batch_, count_)) {
      for (Worker* worker : authors_) {
        ++worker->dropped;
      }
      dropped_ += authors_.size();
      untold_ = true;
      drops_ = true;
    } else if (!slow_) {
      // As long as it keeps up nothing is taken out of a pipe that is not written.
      slow_ = !output_->written(kPatienceMs);
    } else {
      slow_ = !output_->written(0);
    }
    batch_.clear();
    count_ = 0;
    authors_.clear();
  }

  // As soon as there is room again, and in place of what is missing.
  void say_dropped() {
    if (!drops_ || !output_) {
      return;
    }
    std::string remarks;
    const WallTime time = to_wall(now_, kernel_->wall_offset());
    for (auto& [epoch, worker] : workers_) {
      if (worker->dropped > 0) {
        format_->remark(remarks, time, worker->author, remark(worker->dropped));
      }
    }
    for (const auto& [author, dropped] : gone_dropped_) {
      format_->remark(remarks, time, author, remark(dropped));
    }
    if (remarks.empty() || output_->put(remarks, 0)) {
      for (auto& [epoch, worker] : workers_) {
        worker->dropped = 0;
      }
      gone_dropped_.clear();
      drops_ = false;
    }
  }

  static std::string remark(std::uint64_t dropped) {
    return std::to_string(dropped) +
           " lines are missing here: the output did not take them fast enough";
  }

  void take_out(Source& source) {
    while (source.taken > 0) {
      const ssize_t got = os::retry([&] {
        return splice(source.pipe.get(), nullptr, nothing_.get(), nullptr, source.taken,
                      SPLICE_F_NONBLOCK);
      });
      if (got <= 0) {
        source.taken = 0;
        return;
      }
      source.taken -= static_cast<std::size_t>(got);
    }
  }

  // Nobody writes to it any more, and everything was read.
  void end(Source& source) {
    if (!source.pipe) {
      return;
    }
    int left = 0;
    if (ioctl(source.pipe.get(), FIONREAD, &left) == 0 && left > 0) {
      mark(&source);
      return;
    }
    const WallTime time = to_wall(now_, kernel_->wall_offset());
    source.cutter.finish([&](const Line& line) { add_line(source, line, time); });
    deliver();
    unfinished_ -= source.left_at ? 1U : 0U;
    source.left_at.reset();
    // The guard and the master have it too, so closing it alone would leave it in the set.
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, source.pipe.get(), nullptr);
    source.pipe.reset();
    Worker* const worker = source.worker;
    if (!worker->sources[0].pipe && !worker->sources[1].pipe) {
      forget(*worker);
    }
  }

  void forget(Worker& worker) {
    const std::uint64_t epoch = worker.author.epoch;
    remembered_.emplace_back(epoch, worker.tail.message());
    if (remembered_.size() > kMostRemembered) {
      remembered_.pop_front();
    }
    if (worker.dropped > 0) {
      gone_dropped_.emplace_back(worker.author, worker.dropped);
    }
    std::erase_if(ready_, [&worker](const Source* source) { return source->worker == &worker; });
    over_.push_back(std::move(workers_.at(epoch)));  // somebody may still be looking at it
    workers_.erase(epoch);
    send("GONE=" + std::to_string(epoch));
  }

  std::unique_ptr<os::LinuxKernel> kernel_;
  int control_;
  os::UniqueFd epoll_;
  std::array<os::UniqueFd, 2> peek_;
  os::UniqueFd nothing_;  // where goes what has been written
  std::optional<Output> output_;
  std::optional<Format> format_;
  std::map<std::uint64_t, std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Worker>> over_;
  std::deque<std::pair<std::uint64_t, std::string>> remembered_;
  std::vector<std::pair<Author, std::uint64_t>> gone_dropped_;
  std::vector<Source*> ready_;
  std::string bytes_;             // what was looked at
  std::string batch_;             // the lines of one round
  std::vector<Worker*> authors_;  // of each of them
  std::uint64_t count_ = 0;
  std::size_t unfinished_ = 0;  // sources with the beginning of a line left in the pipe
  Instant now_;
  Instant told_at_;
  std::uint64_t dropped_ = 0;
  bool heard_ = false;
  bool untold_ = false;
  bool drops_ = false;
  bool slow_ = false;  // the output does not keep up: lines wait in memory
  bool finishing_ = false;
  bool leaving_ = false;
};

}  // namespace

int run_reader(int control) {
  fcntl(control, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_NAME, "einhorn-capture");
  Result<std::unique_ptr<os::LinuxKernel>> kernel = os::LinuxKernel::create();
  if (!kernel) {
    return 1;
  }
  Reader reader(std::move(*kernel), control);
  const int status = reader.run();
  _exit(status);  // the thread of the output may still be there
}

}  // namespace einhorn::capture
