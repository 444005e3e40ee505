#include "master/interceptor.h"

#include <algorithm>
#include <charconv>

namespace einhorn::master {
namespace {

constexpr std::string_view kControlName = "intercept";
constexpr std::string_view kWatchPrefix = "watch:";
constexpr std::string_view kFormPrefix = "form:";
constexpr Duration kLived = std::chrono::seconds{1};
constexpr Duration kFirstDelay = std::chrono::milliseconds{20};
constexpr Duration kMostDelay = std::chrono::seconds{5};
constexpr int kMaxMessagesPerTurn = 256;

using Lines = std::vector<std::pair<std::string, std::string>>;

Lines lines_of(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (const std::size_t equals = line.find('='); equals != std::string_view::npos) {
      lines.emplace_back(line.substr(0, equals), line.substr(equals + 1));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string value_of(const Lines& lines, std::string_view key) {
  for (const auto& [name, value] : lines) {
    if (name == key) {
      return value;
    }
  }
  return "";
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Events for programs that read the log: static texts, and not whatever the supervisor says.
std::string_view event_name(std::string_view said) {
  for (const std::string_view known :
       {"intercepted", "bind_seen", "intercept_option", "intercept_failed", "intercept_epoll",
        "intercept_blind", "intercept_file"}) {
    if (said == known) {
      return known;
    }
  }
  return "intercept";
}

}  // namespace

Interceptor::Interceptor(os::Kernel& kernel, GuardLink& guard, Log& log,
                         const wire::Settings& settings, Hooks hooks)
    : kernel_(kernel), guard_(guard), log_(log), settings_(settings), hooks_(std::move(hooks)) {}

Interceptor::~Interceptor() {
  if (control_ >= 0) {
    kernel_.close(control_);
  }
  for (const auto& [name, fd] : forms_) {
    kernel_.close(fd);
  }
  for (const auto& [epoch, watch] : watches_) {
    kernel_.close(watch.fd);
  }
}

bool Interceptor::is_ours(std::string_view name) {
  return name == kControlName || name.starts_with(kWatchPrefix) || name.starts_with(kFormPrefix);
}

void Interceptor::adopt(std::string_view name, int fd) {
  if (name == kControlName) {
    control_ = fd;
  } else if (name.starts_with(kWatchPrefix)) {
    watches_[number(name.substr(kWatchPrefix.size()))].fd = fd;
  } else {
    forms_[std::string(name)] = fd;
  }
}

void Interceptor::share(const wire::ListenerRecord& record, int fd) {
  shared_[record.index] = {record, fd};
}

bool Interceptor::knows(WorkerId worker) {
  const auto found = watches_.find(worker.epoch.value);
  if (found == watches_.end()) {
    return false;
  }
  found->second.worker = worker;
  return true;
}

void Interceptor::start(Instant now, int keep_below, bool renew) {
  keep_below_ = keep_below;
  started_at_ = now;
  if (control_ < 0) {
    spawn(now);
    return;
  }
  watch_control();
  if (renew) {
    leaving_ = true;
    send("LEAVE=1");
  } else {
    send("SYNC=1");
  }
}

void Interceptor::spawn(Instant now) {
  start_at_.reset();
  Result<std::pair<int, int>> pair = kernel_.socket_pair();
  Result<int> theirs =
      pair ? kernel_.raise(pair->second, std::max(settings_.control + 1, keep_below_))
           : Result<int>(pair.error());
  Result<os::Spawned> spawned = Result<os::Spawned>(os::Spawned{});
  if (theirs) {
    os::SpawnSpec spec;
    // The very program that we are, whatever its file is by now.
    spec.program = "/proc/self/exe";
    spec.arguments = {settings_.script, "--intercept-fd", std::to_string(settings_.control), "--"};
    spec.arguments.insert(spec.arguments.end(), settings_.original_command.begin(),
                          settings_.original_command.end());
    spec.environment = settings_.start_environment;
    spec.descriptors = {{*theirs, settings_.control}};
    spec.keep_below = *theirs + 1;
    spec.sibling = guard_.socket() >= 0;
    spawned = kernel_.spawn(spec);
    kernel_.close(*theirs);
  }
  const bool failed = !theirs || !spawned || spawned->failed;
  if (!failed) {
    control_ = pair->first;
    started_at_ = now;
    kernel_.close(spawned->pidfd);
    hooks_.started(spawned->pid);
    guard_.keep(kControlName, control_);
    watch_control();
    tell_everything(!watches_.empty());
    return;
  }
  const Error error = !theirs ? theirs.error() : !spawned ? spawned.error() : *spawned->failed;
  log_.error("intercept_failed", "Can't start the supervisor of programs: " + error.message());
  if (pair) {
    kernel_.close(pair->first);
  }
  if (spawned && spawned->failed) {
    hooks_.started(spawned->pid);
    kernel_.close(spawned->pidfd);
  }
  delay_ = std::clamp(delay_ * 2, kFirstDelay, kMostDelay);
  start_at_ = now + delay_;
}

void Interceptor::tell_everything(bool adopted) {
  unsent_.clear();
  std::string text = std::string("SETTINGS=1\ntell_all=") + (settings_.intercept_all ? "1" : "0");
  for (const std::string& rule : settings_.intercept_rules) {
    text += "\nrule=" + rule;
  }
  send(std::move(text));
  for (const auto& [index, entry] : shared_) {
    const wire::ListenerRecord& record = entry.first;
    send("SHARED=" + std::to_string(index) + "\nbacklog=" + std::to_string(record.backlog) +
             "\nname=" + record.name + "\nbackup=" + record.backup,
         entry.second);
  }
  for (const auto& [name, fd] : forms_) {
    const std::size_t colon = name.rfind(':');
    send("FORM=" + name.substr(kFormPrefix.size(), colon - kFormPrefix.size()) +
             "\nnumber=" + name.substr(colon + 1),
         fd);
  }
  for (const auto& [epoch, watch] : watches_) {
    send("WORKER=" + std::to_string(epoch) +
             "\nslot=" + std::to_string(watch.worker ? watch.worker->slot.value : 0),
         watch.fd);
  }
  if (adopted) {
    send("ADOPTED=1");
  }
}

void Interceptor::add(WorkerId worker, int notify) {
  watches_[worker.epoch.value] = {notify, worker};
  guard_.keep(std::string(kWatchPrefix) + std::to_string(worker.epoch.value), notify);
  if (control_ >= 0 && !leaving_) {
    send("WORKER=" + std::to_string(worker.epoch.value) +
             "\nslot=" + std::to_string(worker.slot.value),
         notify);
  }
}

void Interceptor::send(std::string text, int fd) {
  unsent_.push_back({std::move(text), fd});
  flush();
}

void Interceptor::flush() {
  std::size_t sent = 0;
  while (sent < unsent_.size() && control_ >= 0) {
    const Unsent& next = unsent_[sent];
    const os::Transfer transfer =
        kernel_.send(control_, next.text, next.fd >= 0 ? std::span(&next.fd, 1) : std::span<int>());
    if (transfer.kind == os::Transfer::Kind::kWouldBlock) {
      break;
    }
    ++sent;  // done, or it is gone, which on_ready will notice
  }
  unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(sent));
  if (control_ >= 0 && writable_watched_ != !unsent_.empty()) {
    watch_control();
  }
}

void Interceptor::watch_control() {
  writable_watched_ = !unsent_.empty();
  if (Status watched = kernel_.watch(control_, kToken, {true, writable_watched_}); !watched) {
    log_.error("intercept_failed", watched.error().message());
  }
}

void Interceptor::on_ready(const os::Ready& ready, Instant now) {
  if (ready.writable) {
    flush();
  }
  for (int i = 0; i < kMaxMessagesPerTurn && control_ >= 0; ++i) {
    const os::Message message = kernel_.receive(control_);
    if (message.kind == os::Transfer::Kind::kWouldBlock) {
      return;
    }
    if (message.kind == os::Transfer::Kind::kClosed) {
      on_gone(now);
      return;
    }
    on_message(message);
  }
}

void Interceptor::on_gone(Instant now) {
  kernel_.unwatch(control_);
  kernel_.close(control_);
  control_ = -1;
  guard_.forget(kControlName);
  if (std::exchange(leaving_, false)) {
    spawn(now);
    return;
  }
  delay_ =
      now - started_at_ > kLived ? Duration{0} : std::clamp(delay_ * 2, kFirstDelay, kMostDelay);
  log_.error("intercept_restart",
             "The supervisor of programs has died; starting it again. Programs that bind wait "
             "for it.");
  if (delay_ == Duration{0}) {
    spawn(now);
  } else {
    start_at_ = now + delay_;
  }
}

void Interceptor::turn(Instant now) {
  if (start_at_ && *start_at_ <= now) {
    spawn(now);
  }
}

void Interceptor::on_message(const os::Message& message) {
  const Lines lines = lines_of(message.text);
  const std::string verb = lines.empty() ? "" : lines[0].first;
  if (verb == "FORM") {
    on_form(lines, message.fds);
    return;
  }
  for (const int fd : message.fds) {
    kernel_.close(fd);
  }
  if (verb == "LISTENING") {
    const auto watch = watches_.find(number(lines[0].second));
    if (watch != watches_.end() && watch->second.worker) {
      hooks_.listening(*watch->second.worker);
    }
  } else if (verb == "GONE") {
    const auto watch = watches_.find(number(lines[0].second));
    if (watch != watches_.end()) {
      guard_.forget(std::string(kWatchPrefix) + lines[0].second);
      std::erase_if(unsent_, [&](const Unsent& each) { return each.fd == watch->second.fd; });
      kernel_.close(watch->second.fd);
      watches_.erase(watch);
    }
  } else if (verb == "SAY") {
    const std::string_view event = event_name(value_of(lines, "event"));
    if (lines[0].second == "error") {
      log_.error(event, value_of(lines, "text"));
    } else {
      log_.info(event, value_of(lines, "text"));
    }
  }
}

void Interceptor::on_form(const Lines& lines, const std::vector<int>& fds) {
  if (fds.size() != 1) {
    for (const int fd : fds) {
      kernel_.close(fd);
    }
    return;
  }
  const std::string name =
      std::string(kFormPrefix) + lines[0].second + ":" + value_of(lines, "number");
  // Above what workers get, so that no spawn has to make room.
  Result<int> raised = kernel_.raise(fds[0], keep_below_);
  const int fd = raised ? *raised : fds[0];
  if (const auto old = forms_.find(name); old != forms_.end()) {
    kernel_.close(old->second);
  }
  forms_[name] = fd;
  guard_.keep(name, fd);
}

void Interceptor::list(std::vector<std::pair<std::string, int>>& all) const {
  if (control_ >= 0) {
    all.emplace_back(kControlName, control_);
  }
  for (const auto& [name, fd] : forms_) {
    all.emplace_back(name, fd);
  }
  for (const auto& [epoch, watch] : watches_) {
    all.emplace_back(std::string(kWatchPrefix) + std::to_string(epoch), watch.fd);
  }
}

}  // namespace einhorn::master
