#include "master/hook_runner.h"

#include <algorithm>
#include <array>
#include <csignal>

#include "base/limits.h"
#include "base/numbers.h"
#include "master/exit_status.h"
#include "master/narrate.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

using pool::Hook;

constexpr std::string_view kNamePrefix = "hook:";
constexpr Duration kEndsWithin = std::chrono::seconds{2};  // after TERM
constexpr std::size_t kLastReads = 512;                    // more than a pipe may hold

bool is_waited_for(Hook hook) {
  return hook == Hook::kBeforeStart || hook == Hook::kBeforeStop || hook == Hook::kBeforeUpgrade;
}

bool is_of_upgrade(Hook hook) {
  return hook == Hook::kBeforeUpgrade || hook == Hook::kAfterUpgrade;
}

std::string described(os::Ended how) {
  const pool::ExitStatus status = exit_status(how);
  const bool well = status.kind == pool::ExitStatus::Kind::kExited && status.value == 0;
  return well ? "" : describe(status);
}

}  // namespace

HookRunner::HookRunner(os::Kernel& kernel, GuardLink& guard, Log& log,
                       const wire::Settings& settings, Hooks hooks)
    : kernel_(kernel), guard_(guard), log_(log), settings_(settings), hooks_(std::move(hooks)) {}

HookRunner::~HookRunner() {
  for (const auto& [number, run] : runs_) {
    for (const int fd : {run.pidfd, run.output}) {
      if (fd >= 0) {
        kernel_.close(fd);
      }
    }
  }
}

// --- from the last master to this one -----------------------------------------------------------

void HookRunner::adopt(const wire::HookRecord& record) {
  next_number_ = std::max(next_number_, record.number + 1);
  runs_[record.number].record = record;
}

bool HookRunner::adopt(std::string_view name, int fd) {
  if (!name.starts_with(kNamePrefix)) {
    return false;
  }
  const std::uint64_t number = number_of(name.substr(kNamePrefix.size()));
  next_number_ = std::max(next_number_, number + 1);
  const auto found = runs_.find(number);
  if (found == runs_.end()) {
    guard_.forget(std::string(kNamePrefix) + std::to_string(number));
    kernel_.close(fd);  // it was over, and the guard had not heard of it
  } else {
    found->second.output = fd;
  }
  return true;
}

void HookRunner::start(Instant now, int keep_below, Pid guard, bool same_guard) {
  keep_below_ = keep_below;
  std::vector<std::uint64_t> lost;
  for (auto& [number, run] : runs_) {
    if (run.record.pid == 0) {
      continue;
    }
    ++(is_waited_for(run.record.hook) ? running_before_ : running_after_);
    // Another guard's child is nobody's that we could ask, and its number may be somebody else's.
    if (same_guard && !run.record.orphan) {
      run.pidfd = kernel_.open_process(run.record.pid, guard).value_or(-1);
    }
    if (run.pidfd < 0) {
      lost.push_back(number);
      continue;
    }
    static_cast<void>(kernel_.watch(run.pidfd, kDeathToken | number, {true, false}).has_value());
    if (run.record.given_up) {
      send(run, SIGTERM);  // perhaps by this master, just now
    }
    if (run.output >= 0) {
      static_cast<void>(
          kernel_.watch(run.output, kOutputToken | number, {true, false}).has_value());
    }
  }
  started_ = true;
  for (const std::uint64_t number : lost) {
    restart(number, now);
  }
  dispatch(now);
}

// It is gone, and how it ended only the last master has heard.
void HookRunner::restart(std::uint64_t number, Instant now) {
  const auto found = runs_.find(number);
  Run& run = found->second;
  const bool again = is_waited_for(run.record.hook) && !run.record.given_up;
  if (again) {
    log(run, Level::kInfo, "hook_again", "is run again, as nobody knows how it ended");
    --running_before_;
    close_output(run);
    const wire::HookRecord old = run.record;
    run = Run{};
    run.record = old;
    run.record.pid = 0;
    run.record.orphan = false;
    note(run);
    return;
  }
  if (!run.record.given_up) {
    log(run, Level::kError, "hook_given_up", "was lost with the last master and is given up");
  }
  run.record.given_up = true;
  finish(found, "", now);
}

std::map<std::uint64_t, wire::HookRecord> HookRunner::records() const {
  std::map<std::uint64_t, wire::HookRecord> records;
  for (const auto& [number, run] : runs_) {
    records[number] = run.record;
  }
  return records;
}

void HookRunner::list(std::vector<std::pair<std::string, int>>& all) const {
  for (const auto& [number, run] : runs_) {
    if (run.output >= 0) {
      all.emplace_back(std::string(kNamePrefix) + std::to_string(number), run.output);
    }
  }
}

// --- starting one -------------------------------------------------------------------------------

Duration HookRunner::patience(Hook hook) const {
  return is_of_upgrade(hook) ? settings_.hook_upgrade_timeout : settings_.hook_timeout;
}

void HookRunner::run(Hook hook, WorkerId worker, Version version,
                     std::vector<std::string> variables, Instant now) {
  if (settings_.hook(hook).empty()) {
    hooks_.ended({hook, worker, version, true, "", {}, Duration::zero()});
    return;
  }
  if (!is_waited_for(hook) && runs_.size() >= limits::kMaxHooksWaiting) {
    if (refused_++ == 0) {
      log_.error("hook_refused", "More than " + std::to_string(limits::kMaxHooksWaiting) +
                                     " hooks wait to be run; others are left out");
    }
    return;
  }
  refused_ = 0;
  Run waiting;
  waiting.record.number = next_number_++;
  waiting.record.hook = hook;
  waiting.record.worker = worker;
  waiting.record.version = version;
  waiting.record.variables = std::move(variables);
  note(waiting);
  runs_.emplace(waiting.record.number, std::move(waiting));
  dispatch(now);
}

// One that can't be started is over at once, and so is this called from within itself.
void HookRunner::dispatch(Instant now) {
  if (!started_) {
    return;  // those that run already are counted first
  }
  if (dispatching_) {
    dispatch_again_ = true;
    return;
  }
  dispatching_ = true;
  do {
    dispatch_again_ = false;
    begin_next(now);
  } while (dispatch_again_);
  dispatching_ = false;
}

void HookRunner::begin_next(Instant now) {
  std::vector<std::uint64_t> next;
  std::size_t before = running_before_;
  std::size_t after = running_after_;
  for (const auto& [number, run] : runs_) {
    if (before >= limits::kMaxHooksBefore && after >= limits::kMaxHooksAfter) {
      break;
    }
    std::size_t& count = is_waited_for(run.record.hook) ? before : after;
    const std::size_t most =
        is_waited_for(run.record.hook) ? limits::kMaxHooksBefore : limits::kMaxHooksAfter;
    if (run.record.pid == 0 && count < most) {
      ++count;
      next.push_back(number);
    }
  }
  for (const std::uint64_t number : next) {
    begin(number, now);
  }
}

void HookRunner::begin(std::uint64_t number, Instant now) {
  const auto found = runs_.find(number);
  if (found == runs_.end() || found->second.record.pid != 0) {
    return;
  }
  Run& run = found->second;
  run.record.started_at = now;
  run.record.deadline = now + patience(run.record.hook);
  if (const std::optional<Error> error = spawn(run)) {
    finish(found, "can't be started: " + error->message(), now);
    return;
  }
  ++(is_waited_for(run.record.hook) ? running_before_ : running_after_);
  note(run);
}

std::optional<Error> HookRunner::spawn(Run& run) {
  Result<os::SpawnSpec> spec = hooks_.spec(run.record);
  if (!spec) {
    return spec.error();
  }
  Result<std::pair<int, int>> output = kernel_.pipe();
  if (!output) {
    return output.error();
  }
  const auto [ours, theirs] = *output;
  // Nothing is to be read from this one: no hook waits for a terminal.
  Result<std::pair<int, int>> input = kernel_.pipe();
  if (!input) {
    kernel_.close(ours);
    kernel_.close(theirs);
    return input.error();
  }
  kernel_.close(input->second);
  const std::string name = std::string(kNamePrefix) + std::to_string(run.record.number);
  run.output = kernel_.raise(ours, keep_below_).value_or(ours);
  guard_.keep(name, run.output);
  spec->environment.insert(spec->environment.end(), run.record.variables.begin(),
                           run.record.variables.end());
  spec->descriptors = {{input->first, 0}};
  spec->output = theirs;
  spec->error_output = theirs;
  spec->keep_below = std::max(keep_below_, input->first + 1);
  spec->sibling = guard_.socket() >= 0;
  spec->own_group = true;
  Result<os::Spawned> spawned = kernel_.spawn(*spec);
  kernel_.close(theirs);
  kernel_.close(input->first);
  if (!spawned || spawned->failed) {
    close_output(run);
    if (spawned) {
      if (spawned->pidfd >= 0) {
        kernel_.close(spawned->pidfd);
      }
      hooks_.ghost(spawned->pid);
    }
    return spawned ? *spawned->failed : spawned.error();
  }
  run.record.pid = spawned->pid;
  run.pidfd = spawned->pidfd;
  run.own = !spec->sibling;
  const std::uint64_t number = run.record.number;
  static_cast<void>(kernel_.watch(run.pidfd, kDeathToken | number, {true, false}).has_value());
  static_cast<void>(kernel_.watch(run.output, kOutputToken | number, {true, false}).has_value());
  return std::nullopt;
}

// --- what it writes -----------------------------------------------------------------------------

void HookRunner::on_output(std::uint64_t number) {
  const auto found = runs_.find(number);
  if (found != runs_.end()) {
    read(found->second, limits::kMaxHookReads);
  }
}

void HookRunner::read(Run& run, std::size_t reads) {
  std::array<char, 4096> buffer;
  while (reads-- > 0 && run.output >= 0) {
    const os::Transfer transfer = kernel_.read(run.output, buffer);
    if (transfer.kind == os::Transfer::Kind::kWouldBlock) {
      return;
    }
    if (transfer.kind == os::Transfer::Kind::kClosed) {
      close_output(run);
      return;
    }
    take(run, {buffer.data(), transfer.bytes});
  }
}

void HookRunner::take(Run& run, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t end = std::min(bytes.find('\n'), bytes.size());
    const std::size_t room =
        limits::kMaxHookLine - std::min(limits::kMaxHookLine, run.partial.size());
    const std::size_t kept = std::min(end, room);
    run.partial.append(bytes.substr(0, kept));
    run.dropped += end - kept;
    if (end < bytes.size()) {
      say_line(run, run.partial);
      run.partial.clear();
    }
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
}

void HookRunner::say_line(Run& run, std::string_view line) {
  std::string text = wire::text::to_utf8(line);
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  if (text.empty()) {
    return;
  }
  if (run.lines++ < limits::kMaxHookLines) {
    log(run, Level::kInfo, "hook_output", ": " + text);
  } else {
    run.dropped += line.size();
  }
  run.last.push_back(std::move(text));
  if (run.last.size() > limits::kMaxHookLastLines) {
    run.last.pop_front();
  }
}

void HookRunner::close_output(Run& run) {
  if (run.output >= 0) {
    guard_.forget(std::string(kNamePrefix) + std::to_string(run.record.number));
    kernel_.unwatch(run.output);
    kernel_.close(std::exchange(run.output, -1));
  }
}

// --- its end ------------------------------------------------------------------------------------

bool HookRunner::has(Hook hook, WorkerId worker) const {
  return std::ranges::any_of(runs_, [&](const auto& entry) {
    const wire::HookRecord& record = entry.second.record;
    return record.hook == hook && record.worker == worker && !record.given_up;
  });
}

void HookRunner::give_up(Hook hook, WorkerId worker, Instant now) {
  std::vector<std::uint64_t> meant;
  for (const auto& [number, run] : runs_) {
    if (run.record.hook == hook && run.record.worker == worker && !run.record.given_up) {
      meant.push_back(number);
    }
  }
  for (const std::uint64_t number : meant) {
    const auto found = runs_.find(number);
    if (found == runs_.end()) {
      continue;
    }
    Run& run = found->second;
    run.record.given_up = true;
    if (run.record.pid == 0) {
      finish(found, "", now);
      continue;
    }
    log(run, Level::kInfo, "hook_ended", "is ended, as nobody waits for it any more");
    run.record.deadline = now + kEndsWithin;
    send(run, SIGTERM);
    note(run);
  }
}

void HookRunner::send(Run& run, int signal) {
  if (run.pidfd >= 0) {
    kernel_.signal(run.pidfd, run.record.pid, signal, true);
  }
}

void HookRunner::on_death(std::uint64_t number, Instant now) {
  const auto found = runs_.find(number);
  if (found == runs_.end() || found->second.reported || !kernel_.is_dead(found->second.pidfd)) {
    return;
  }
  Run& run = found->second;
  if (run.own) {
    if (const auto how = kernel_.reap(run.record.pid)) {
      finish(found, described(*how), now);
    }
    return;
  }
  if (run.record.orphan || guard_.socket() < 0) {
    finish(found, "ended in an unknown way", now);
    return;
  }
  run.reported = true;
  kernel_.unwatch(run.pidfd);
  guard_.ask_for(run.record.pid);
}

bool HookRunner::on_ended(Pid pid, os::Ended how, Instant now) {
  const auto found = std::ranges::find_if(runs_, [pid](const auto& entry) {
    return pid != 0 && entry.second.record.pid == pid && !entry.second.record.orphan;
  });
  if (found == runs_.end()) {
    return false;
  }
  finish(found, described(how), now);
  return true;
}

void HookRunner::on_guard_lost() {
  for (auto& [number, run] : runs_) {
    if (run.record.pid != 0 && !run.own) {
      run.record.orphan = true;
      if (std::exchange(run.reported, false)) {  // nobody will answer
        static_cast<void>(
            kernel_.watch(run.pidfd, kDeathToken | number, {true, false}).has_value());
      }
      note(run);
    }
  }
}

void HookRunner::turn(Instant now) {
  std::vector<std::uint64_t> due;
  for (const auto& [number, run] : runs_) {
    if (run.record.pid != 0 && !run.killed && run.record.deadline <= now) {
      due.push_back(number);
    }
  }
  for (const std::uint64_t number : due) {
    const auto found = runs_.find(number);
    if (found == runs_.end()) {
      continue;
    }
    Run& run = found->second;
    if (run.record.given_up) {
      run.killed = true;
      send(run, SIGKILL);
      continue;
    }
    run.record.given_up = true;
    run.record.deadline = now + kEndsWithin;
    send(run, SIGTERM);
    note(run);
    read(run, limits::kMaxHookReads);
    tell(run, "took longer than " + seconds_text(patience(run.record.hook)) + " s", now);
  }
}

std::optional<Instant> HookRunner::next_deadline() const {
  std::optional<Instant> next;
  for (const auto& [number, run] : runs_) {
    if (run.record.pid != 0 && !run.killed && (!next || run.record.deadline < *next)) {
      next = run.record.deadline;
    }
  }
  return next;
}

// It is over.
void HookRunner::finish(Place place, const std::string& trouble, Instant now) {
  const auto node = runs_.extract(place);
  Run& run = node.mapped();
  // What is in the pipe by now; who goes on writing is not of the hook any more.
  read(run, kLastReads);
  if (!run.partial.empty()) {
    say_line(run, std::exchange(run.partial, ""));
  }
  if (run.dropped > 0) {
    log(run, Level::kInfo, "hook_output",
        "wrote " + std::to_string(run.dropped) + " bytes more, which are not shown");
  }
  close_output(run);
  if (run.pidfd >= 0) {
    kernel_.unwatch(run.pidfd);
    kernel_.close(run.pidfd);
  }
  if (run.record.pid != 0) {
    --(is_waited_for(run.record.hook) ? running_before_ : running_after_);
  }
  hooks_.note(wire::encode_hook_gone(run.record.number));
  if (!run.record.given_up) {
    tell(run, trouble, now);
  }
  dispatch(now);
}

void HookRunner::tell(const Run& run, const std::string& trouble, Instant now) {
  const Duration ran = now - run.record.started_at;
  if (trouble.empty()) {
    log(run, Level::kDebug, "hook_done", "is done after " + seconds_text(ran) + " s");
  } else {
    log(run, Level::kError, "hook_failed", trouble);
  }
  Ended ended{
      run.record.hook, run.record.worker, run.record.version, trouble.empty(), trouble, {}, ran};
  ended.last.assign(run.last.begin(), run.last.end());
  hooks_.ended(ended);
}

void HookRunner::end_all() {
  for (auto& [number, run] : runs_) {
    send(run, SIGKILL);
  }
}

// "before-start hook of worker 3", by its index.
std::string HookRunner::about(const wire::HookRecord& record) const {
  std::string text = std::string(name(record.hook)) + " hook";
  if (record.worker.epoch.value != 0) {
    text += " of worker " + std::to_string(record.worker.slot.value);
  }
  return text;
}

void HookRunner::log(const Run& run, Level level, std::string_view event, const std::string& text) {
  LogLine line{level, event, about(run.record) + (text.starts_with(':') ? "" : " ") + text};
  line.version = run.record.version;
  if (run.record.worker.epoch.value != 0) {
    line.worker = run.record.worker;
  }
  log_.write(line);
}

}  // namespace einhorn::master
