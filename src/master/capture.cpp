#include "master/capture.h"

#include <algorithm>

#include "base/key_values.h"
#include "base/limits.h"
#include "base/numbers.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kLineName = "capture";
constexpr std::string_view kOutPrefix = "out:";
constexpr std::string_view kErrorPrefix = "err:";
constexpr Duration kPatience = std::chrono::milliseconds{500};
constexpr Duration kFinishPatience = std::chrono::seconds{3};
constexpr std::size_t kMostLast = 20;

}  // namespace

Capture::Capture(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
                 Hooks hooks)
    : kernel_(kernel),
      guard_(guard),
      log_(log),
      settings_(settings),
      hooks_(std::move(hooks)),
      reader_(kernel, guard, log, settings,
              {.name = kLineName,
               .token = Companion::kCaptureToken,
               .failed_event = "capture_failed",
               .restart_event = "capture_restart",
               .what = "The reader of workers' output",
               .meanwhile = "What they write waits in their pipes."},
              {.program =
                   [this] {
                     return Companion::our_own_program(
                         settings_, {"--capture-fd", std::to_string(settings_.control)});
                   },
               .born =
                   [this] {
                     reader_.send("SETTINGS=1\nfile=" + settings_.capture_file +
                                  "\njson=" + (settings_.log_json ? "1" : "0"));
                     for (const auto& [epoch, pipes] : pipes_) {
                       tell_pipes(epoch, pipes);
                     }
                     for (const Asked& asked : asked_) {
                       reader_.send("TAIL=" + std::to_string(asked.about.worker.epoch.value));
                     }
                   },
               .said = [this](const os::Message& message) { on_message(message); },
               .started = hooks_.started}) {}

Capture::~Capture() {
  for (const auto& [epoch, pipes] : pipes_) {
    for (const int fd : {pipes.out, pipes.error}) {
      if (fd >= 0) {
        kernel_.close(fd);
      }
    }
  }
}

std::string Capture::name_of(std::string_view prefix, std::uint64_t epoch, const Pipes& pipes) {
  return std::string(prefix) + std::to_string(epoch) + ":" + std::to_string(pipes.slot) + ":" +
         std::to_string(pipes.version);
}

std::optional<std::uint64_t> Capture::epoch_in(std::string_view name) {
  static_assert(kOutPrefix.size() == kErrorPrefix.size());
  const bool ours = name.starts_with(kOutPrefix) || name.starts_with(kErrorPrefix);
  return ours ? std::optional(number_of(name.substr(kOutPrefix.size()))) : std::nullopt;
}

bool Capture::adopt(std::string_view name, int fd) {
  const std::optional<std::uint64_t> epoch = epoch_in(name);
  if (!epoch) {
    return reader_.adopt(name, fd);
  }
  const bool out = name.starts_with(kOutPrefix);
  name.remove_prefix(kOutPrefix.size());
  const std::size_t slot = name.find(':');
  const std::size_t version = name.find(':', slot == std::string_view::npos ? slot : slot + 1);
  Pipes& pipes = pipes_[*epoch];
  (out ? pipes.out : pipes.error) = fd;
  if (version != std::string_view::npos) {
    pipes.slot = static_cast<std::uint32_t>(number_of(name.substr(slot + 1)));
    pipes.version = number_of(name.substr(version + 1));
  }
  return true;
}

void Capture::knows(WorkerId worker, Pid pid) {
  if (const auto found = pipes_.find(worker.epoch.value); found != pipes_.end()) {
    found->second.pid = pid;
  }
}

void Capture::start(Instant now, int keep_below, bool renew) {
  keep_below_ = keep_below;
  // Half of one: the last master died between keeping the two.
  for (auto it = pipes_.begin(); it != pipes_.end();) {
    const auto next = std::next(it);
    if (it->second.out < 0 || it->second.error < 0) {
      give_back(it->first);
    }
    it = next;
  }
  if (!reader_.start(now, keep_below, renew)) {
    // Perhaps the last master died before it had told of all, or heard of those that are over.
    for (const auto& [epoch, pipes] : pipes_) {
      tell_pipes(epoch, pipes);
    }
  }
}

void Capture::tell_pipes(std::uint64_t epoch, const Pipes& pipes) {
  reader_.send("PIPES=" + std::to_string(epoch) + "\nindex=" + std::to_string(pipes.slot) +
                   "\nversion=" + std::to_string(pipes.version) +
                   "\npid=" + std::to_string(pipes.pid),
               {pipes.out, pipes.error});
}

void Capture::before_spawn(WorkerId worker, Version version, os::SpawnSpec& spec) {
  write_ends_ = {-1, -1};
  if (2 * pipes_.size() >= limits::kMaxStoredPipes) {
    if (!std::exchange(refused_, true)) {
      log_.error("capture_failed", "The output of more than " + std::to_string(pipes_.size()) +
                                       " workers can't be captured; that of others stays as it is");
    }
    return;
  }
  Result<std::pair<int, int>> out = kernel_.pipe();
  Result<std::pair<int, int>> error =
      out ? kernel_.pipe() : Result<std::pair<int, int>>(out.error());
  if (!error) {
    log_.error("capture_failed", "No pipe for the output of a worker: " + error.error().message());
    if (out) {
      kernel_.close(out->first);
      kernel_.close(out->second);
    }
    return;
  }
  Pipes pipes{out->first, error->first, worker.slot.value, version.value, 0};
  for (int* fd : {&pipes.out, &pipes.error}) {
    // Above what workers get, so that no spawn has to make room.
    if (Result<int> raised = kernel_.raise(*fd, keep_below_)) {
      *fd = *raised;
    }
  }
  guard_.keep(name_of(kOutPrefix, worker.epoch.value, pipes), pipes.out);
  guard_.keep(name_of(kErrorPrefix, worker.epoch.value, pipes), pipes.error);
  pipes_[worker.epoch.value] = pipes;
  write_ends_ = {out->second, error->second};
  spec.output = out->second;
  spec.error_output = error->second;
}

void Capture::after_spawn(WorkerId worker, Pid pid) {
  if (write_ends_.first < 0) {
    return;
  }
  kernel_.close(write_ends_.first);
  kernel_.close(write_ends_.second);
  write_ends_ = {-1, -1};
  const auto found = pipes_.find(worker.epoch.value);
  if (found == pipes_.end()) {
    return;
  }
  if (pid == 0) {
    give_back(worker.epoch.value);
    return;
  }
  found->second.pid = pid;
  tell_pipes(worker.epoch.value, found->second);
}

void Capture::give_back(std::uint64_t epoch) {
  const auto found = pipes_.find(epoch);
  if (found == pipes_.end()) {
    return;
  }
  for (const auto& [prefix, fd] :
       {std::pair(kOutPrefix, found->second.out), std::pair(kErrorPrefix, found->second.error)}) {
    if (fd >= 0) {
      reader_.drop(fd);
      guard_.forget(name_of(prefix, epoch, found->second));
      kernel_.close(fd);
    }
  }
  pipes_.erase(found);
  refused_ = false;
}

void Capture::ask(LastOutput about, Instant now) {
  about.at = now;
  reader_.send("TAIL=" + std::to_string(about.worker.epoch.value));
  asked_.push_back({std::move(about), now + kPatience});
}

bool Capture::finish(Instant now) {
  if (!reader_.running() || finished_ || (finish_by_ && *finish_by_ <= now)) {
    return true;
  }
  if (!finish_by_) {
    finish_by_ = now + kFinishPatience;
    reader_.send("FINISH=1");
  }
  return false;
}

std::optional<Instant> Capture::next_deadline() const {
  std::optional<Instant> next = finished_ ? std::nullopt : finish_by_;
  for (const Asked& asked : asked_) {
    if (!next || asked.until < *next) {
      next = asked.until;
    }
  }
  return next;
}

void Capture::turn(Instant now) {
  const auto late = std::erase_if(asked_, [now](const Asked& asked) { return asked.until <= now; });
  if (late > 0) {
    log_.error("capture_slow", "The reader of workers' output did not say in time what " +
                                   std::to_string(late) + " dead workers said last");
  }
}

void Capture::on_message(const os::Message& message) {
  for (const int fd : message.fds) {
    kernel_.close(fd);
  }
  const KeyValues lines = key_values(message.text);
  if (lines.empty()) {
    return;
  }
  const auto& [verb, value] = lines[0];
  if (verb == "GONE") {
    give_back(number_of(value));
  } else if (verb == "TAIL") {
    on_tail(lines);
  } else if (verb == "DROPPED") {
    const std::uint64_t dropped = number_of(value);
    // A new reader counts from 0.
    const std::uint64_t more = dropped - (dropped >= dropped_by_reader_ ? dropped_by_reader_ : 0);
    dropped_by_reader_ = dropped;
    dropped_ += more;
    log_.error("capture_dropped", std::to_string(more) +
                                      " lines of workers were dropped: where they go did not take "
                                      "them fast enough (" +
                                      std::to_string(dropped_) + " in all)");
  } else if (verb == "FAILED") {
    log_.error("capture_failed", std::string(value));
  } else if (verb == "FINISHED") {
    finished_ = true;
  }
}

void Capture::on_tail(const KeyValues& lines) {
  const std::uint64_t epoch = number_of(lines[0].second);
  const auto found = std::find_if(asked_.begin(), asked_.end(), [epoch](const Asked& asked) {
    return asked.about.worker.epoch.value == epoch;
  });
  if (found == asked_.end()) {
    return;
  }
  LastOutput about = std::move(found->about);
  asked_.erase(found);
  for (std::size_t i = 1; i < lines.size(); ++i) {
    about.lines.emplace_back(lines[i].first == "out" ? "stdout" : "stderr", lines[i].second);
  }
  if (about.lines.empty()) {
    return;
  }
  last_.push_back(std::move(about));
  if (last_.size() > kMostLast) {
    last_.pop_front();
  }
  hooks_.last_said(last_.back());
}

void Capture::list(std::vector<std::pair<std::string, int>>& all) const {
  reader_.list(all);
  for (const auto& [epoch, pipes] : pipes_) {
    all.emplace_back(name_of(kOutPrefix, epoch, pipes), pipes.out);
    all.emplace_back(name_of(kErrorPrefix, epoch, pipes), pipes.error);
  }
}

}  // namespace einhorn::master
