#include "master/companion.h"

#include <algorithm>

namespace einhorn::master {
namespace {

constexpr Duration kLived = std::chrono::seconds{1};
constexpr Duration kFirstDelay = std::chrono::milliseconds{20};
constexpr Duration kMostDelay = std::chrono::seconds{5};
constexpr Duration kLeavePatience = std::chrono::seconds{10};
constexpr int kMaxMessagesPerTurn = 256;

}  // namespace

Companion::Companion(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
                     About about, Hooks hooks)
    : kernel_(kernel),
      guard_(guard),
      log_(log),
      settings_(settings),
      about_(std::move(about)),
      hooks_(std::move(hooks)) {}

Companion::~Companion() {
  if (line_ >= 0) {
    kernel_.close(line_);
  }
}

os::SpawnSpec Companion::our_own_program(const wire::Settings& settings,
                                         std::vector<std::string> words) {
  os::SpawnSpec spec;
  // The very program that we are, whatever its file is by now.
  spec.program = "/proc/self/exe";
  spec.arguments = {settings.script};
  spec.arguments.insert(spec.arguments.end(), words.begin(), words.end());
  spec.arguments.emplace_back("--");
  spec.arguments.insert(spec.arguments.end(), settings.original_command.begin(),
                        settings.original_command.end());
  spec.environment = settings.start_environment;
  return spec;
}

bool Companion::adopt(std::string_view name, int fd) {
  if (name != about_.name) {
    return false;
  }
  line_ = fd;
  return true;
}

bool Companion::start(Instant now, int keep_below, bool renew) {
  keep_below_ = keep_below;
  started_at_ = now;
  if (line_ < 0) {
    spawn(now);
    return true;
  }
  watch_line();
  if (renew) {
    send("LEAVE=1");
    leaving_ = true;
    due_ = now + kLeavePatience;
  }
  return renew;
}

void Companion::spawn(Instant now) {
  due_.reset();
  Result<std::pair<int, int>> pair = kernel_.socket_pair();
  Result<int> theirs =
      pair ? kernel_.raise(pair->second, std::max(settings_.control + 1, keep_below_))
           : Result<int>(pair.error());
  Result<os::Spawned> spawned = Result<os::Spawned>(os::Spawned{});
  if (theirs) {
    os::SpawnSpec spec = hooks_.program();
    spec.descriptors = {{*theirs, settings_.control}};
    spec.keep_below = *theirs + 1;
    spec.sibling = guard_.socket() >= 0;
    spawned = kernel_.spawn(spec);
    kernel_.close(*theirs);
  }
  const bool failed = !theirs || !spawned || spawned->failed;
  if (!failed) {
    line_ = pair->first;
    started_at_ = now;
    kernel_.close(spawned->pidfd);
    hooks_.started(spawned->pid);
    guard_.keep(about_.name, line_);
    unsent_.clear();
    watch_line();
    hooks_.born();
    return;
  }
  const Error error = !theirs ? theirs.error() : !spawned ? spawned.error() : *spawned->failed;
  log_.error(about_.failed_event, about_.what + " can't be started: " + error.message());
  if (pair) {
    kernel_.close(pair->first);
  }
  if (spawned && spawned->failed) {
    hooks_.started(spawned->pid);
    kernel_.close(spawned->pidfd);
  }
  delay_ = std::clamp(delay_ * 2, kFirstDelay, kMostDelay);
  due_ = now + delay_;
}

void Companion::send(std::string text, std::vector<int> fds) {
  if (!running()) {
    return;
  }
  unsent_.push_back({std::move(text), std::move(fds)});
  flush();
}

void Companion::drop(int fd) {
  std::erase_if(unsent_, [fd](const Unsent& each) {
    return std::find(each.fds.begin(), each.fds.end(), fd) != each.fds.end();
  });
}

void Companion::flush() {
  std::size_t sent = 0;
  while (sent < unsent_.size() && line_ >= 0) {
    const Unsent& next = unsent_[sent];
    if (kernel_.send(line_, next.text, next.fds).kind == os::Transfer::Kind::kWouldBlock) {
      break;
    }
    ++sent;  // done, or it is gone, which on_ready will notice
  }
  unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(sent));
  if (line_ >= 0 && writable_watched_ != !unsent_.empty()) {
    watch_line();
  }
}

void Companion::watch_line() {
  writable_watched_ = !unsent_.empty();
  if (Status watched = kernel_.watch(line_, about_.token, {true, writable_watched_}); !watched) {
    log_.error(about_.failed_event, watched.error().message());
  }
}

void Companion::on_ready(const os::Ready& ready, Instant now) {
  if (ready.writable) {
    flush();
  }
  for (int i = 0; i < kMaxMessagesPerTurn && line_ >= 0; ++i) {
    const os::Message message = kernel_.receive(line_);
    if (message.kind == os::Transfer::Kind::kWouldBlock) {
      return;
    }
    if (message.kind == os::Transfer::Kind::kClosed) {
      on_gone(now);
      return;
    }
    hooks_.said(message);
  }
}

void Companion::close_line() {
  kernel_.unwatch(line_);
  kernel_.close(line_);
  line_ = -1;
  unsent_.clear();
  guard_.forget(about_.name);
}

void Companion::on_gone(Instant now) {
  close_line();
  if (std::exchange(leaving_, false)) {
    spawn(now);
    return;
  }
  delay_ =
      now - started_at_ > kLived ? Duration{0} : std::clamp(delay_ * 2, kFirstDelay, kMostDelay);
  log_.error(about_.restart_event, about_.what + " has died; starting it again" +
                                       (about_.meanwhile.empty() ? "" : ". " + about_.meanwhile));
  if (delay_ == Duration{0}) {
    spawn(now);
  } else {
    due_ = now + delay_;
  }
}

void Companion::turn(Instant now) {
  if (!due_ || *due_ > now) {
    return;
  }
  if (std::exchange(leaving_, false)) {
    log_.error(about_.failed_event,
               about_.what + " was told to leave and does not; another one is started");
    close_line();  // which tells it once more
  }
  spawn(now);
}

void Companion::list(std::vector<std::pair<std::string, int>>& all) const {
  if (line_ >= 0) {
    all.emplace_back(about_.name, line_);
  }
}

}  // namespace einhorn::master
