#include "guard/guard.h"

#include <array>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

#include "guard/messages.h"

namespace einhorn::guard {
namespace {

constexpr std::array kForwarded = {SIGINT,  SIGTERM, SIGQUIT, SIGHUP, SIGUSR1,
                                   SIGUSR2, SIGTTIN, SIGTTOU, SIGALRM};
constexpr std::int64_t kLivedNs =
    200 * kMillisecond;                // a master that lived so long is no crash loop
constexpr int kQuickRestarts = 10;     // of masters that had come up, before there are pauses
constexpr int kMaxStartFailures = 10;  // of a master that never came up
constexpr std::size_t kMaxDescriptorsPerMessage = 64;
constexpr int kExited = 1;  // CLD_EXITED

}  // namespace

bool Guard::store(int fd, std::string_view name) {
  if (name.empty() || name.size() >= kNameBytes) {
    return false;
  }
  for (std::size_t i = 0; i < stored_count_; ++i) {
    if (name == stored_[i].name.data()) {
      system_.close(stored_[i].fd);
      stored_[i].fd = fd;
      return true;
    }
  }
  if (stored_count_ == stored_.size()) {
    return false;
  }
  Stored& entry = stored_[stored_count_++];
  entry.fd = fd;
  entry.name.fill('\0');
  std::memcpy(entry.name.data(), name.data(), name.size());
  return true;
}

void Guard::forget(std::string_view name) {
  for (std::size_t i = 0; i < stored_count_; ++i) {
    if (name == stored_[i].name.data()) {
      system_.close(stored_[i].fd);
      stored_[i] = stored_[--stored_count_];
      return;
    }
  }
}

int Guard::run() {
  if (begin()) {
    while (turn()) {
    }
  }
  return end();
}

bool Guard::begin() {
  if (const int error = system_.begin(); error != 0) {
    say("ERROR: signalfd: %s", strerrordesc_np(error));
    word_ = 1;
    over_ = true;
    return false;
  }
  if (master_.pid < 0) {
    start_master();
  }
  return !over_;
}

bool Guard::turn() {
  Watched watched{master_.control, false, successor_.control, 0};
  watched.master_room = (pending_signals_ != 0 || unreported_) && master_.ready;
  for (const std::int64_t at : {sweep_at_ns_, restart_at_ns_}) {
    if (at != 0 && (watched.until_ns == 0 || at < watched.until_ns)) {
      watched.until_ns = at;
    }
  }
  const Awake awake = system_.wait(watched);
  if (awake.master) {
    on_control_ready(master_);
  }
  if (awake.successor) {
    on_control_ready(successor_);
  }
  if (awake.signals) {
    on_signal_ready();
  }
  const std::int64_t now = system_.now_ns();
  if (restart_at_ns_ != 0 && now >= restart_at_ns_) {
    restart_at_ns_ = 0;
    start_master();
  }
  if (awake.master_room || (sweep_at_ns_ != 0 && now >= sweep_at_ns_)) {
    sweep_at_ns_ = 0;
    forward_signals();
    sweep();
  }
  return !over_;
}

int Guard::end() {
  if (predecessor_ < 0) {
    system_.remove_files();  // else nothing was taken over: it is all still the other one's
  }
  system_.tell_manager("STOPPING=1\nSTATUS=Gone", {});
  return word_;
}

// Starts a master and hands it all that is kept. A failure counts like a death.
void Guard::start_master() {
  const Started started = system_.start_master();
  if (started.failed != nullptr) {
    say("ERROR: can't start a master: %s: %s", started.failed, strerrordesc_np(started.error));
    on_master_gone(kExited, 127);
    return;
  }
  master_ = Child{started.pid, started.control, false, false, system_.now_ns()};
  if (!send_descriptors(master_, "X_EINHORN_GO=1")) {
    say("ERROR: can't hand the descriptors to master %d", started.pid);
  }
}

bool Guard::send_descriptors(const Child& to, std::string_view go) {
  std::array<char, 64 + kMaxDescriptorsPerMessage * kNameBytes> text;
  std::array<int, kMaxDescriptorsPerMessage> fds;
  std::size_t next = 0;
  while (next < stored_count_) {
    int length = std::snprintf(text.data(), text.size(), "X_EINHORN_FDS=1\n");
    std::size_t count = 0;
    for (; next < stored_count_ && count < fds.size(); ++next) {
      fds[count++] = stored_[next].fd;
      length += std::snprintf(text.data() + length, text.size() - static_cast<std::size_t>(length),
                              "%s\n", stored_[next].name.data());
    }
    if (!system_.send(to.control, {text.data(), static_cast<std::size_t>(length)},
                      std::span(fds).first(count))) {
      return false;
    }
  }
  const std::int64_t watchdog = system_.manager_watchdog_us();
  const int length =
      watchdog < 0
          ? std::snprintf(text.data(), text.size(), "%.*s", static_cast<int>(go.size()), go.data())
          : std::snprintf(text.data(), text.size(), "%.*s\nX_EINHORN_MANAGER=%lld",
                          static_cast<int>(go.size()), go.data(), static_cast<long long>(watchdog));
  return system_.send(to.control, {text.data(), static_cast<std::size_t>(length)}, {});
}

void Guard::on_signal_ready() {
  // One at a time: if we become another program half way, it finds the rest.
  for (Signal signal; system_.next_signal(signal);) {
    if (signal.number == SIGCHLD) {
      // Several deaths may be one SIGCHLD. This one is handled at once and without looking at
      // every child; the master asks for those it sees itself, and the rest is swept up soon.
      report_and_reap(signal.child);
      report_and_reap(master_.pid);
      if (sweep_at_ns_ == 0) {
        sweep_at_ns_ = system_.now_ns() + kSecond;
      }
    } else if (signal.number != SIGPIPE) {
      pending_signals_ |= std::uint64_t{1} << static_cast<unsigned>(signal.number);
    }
  }
  forward_signals();
}

void Guard::forward_signals() {
  for (const int number : kForwarded) {
    const std::uint64_t bit = std::uint64_t{1} << static_cast<unsigned>(number);
    if ((pending_signals_ & bit) == 0 || !master_.ready) {
      continue;
    }
    std::array<char, 32> text;
    const int length = std::snprintf(text.data(), text.size(), "X_EINHORN_SIGNAL=%d", number);
    if (tell_master({text.data(), static_cast<std::size_t>(length)})) {
      pending_signals_ &= ~bit;
      told_signals_ |= bit;
    }
  }
}

// Every dead child there is. Looks at each child, so it is not done once a death.
void Guard::sweep() {
  report_and_reap(successor_.pid);
  report_and_reap(master_.pid);  // before those of whom only a living master can be told
  for (Death death; system_.look_at(0, death) == Look::kDead && handle_dead(death);) {
  }
}

bool Guard::report_and_reap(pid_t pid) {
  Death death;
  return pid > 0 && system_.look_at(pid, death) == Look::kDead && handle_dead(death);
}

// False: it has to stay a zombie for now, because nobody could be told.
bool Guard::handle_dead(const Death& death) {
  const pid_t pid = death.pid;
  if (pid == master_.pid || pid == successor_.pid) {
    // What it said before it died still counts. READY makes a successor the master; and it sweeps,
    // so this death may have been seen to already.
    on_control_ready(pid == master_.pid ? master_ : successor_);
    if (pid != master_.pid && pid != successor_.pid) {
      return !over_;
    }
  }
  if (pid == master_.pid) {
    system_.reap(pid);
    on_master_gone(death.code, death.status);
    return !over_;
  }
  if (pid == successor_.pid) {
    system_.reap(pid);
    on_successor_gone();
    return true;
  }
  std::array<char, 64> text;
  const int length = std::snprintf(text.data(), text.size(), "X_EINHORN_EXITED=%d %d %d", pid,
                                   death.code, death.status);
  if (!master_.ready || !tell_master({text.data(), static_cast<std::size_t>(length)})) {
    unreported_ = true;
    return false;
  }
  unreported_ = false;
  system_.reap(pid);
  return true;
}

void Guard::on_control_ready(Child& child) {
  Message message;
  while (child.control >= 0) {
    switch (system_.receive(child.control, message)) {
      case Heard::kNothing:
        return;
      case Heard::kClosed:
        close_control(child);
        // Its death may be one SIGCHLD with another's.
        sweep_at_ns_ = system_.now_ns() + 10 * kMillisecond;
        return;
      case Heard::kMessage:
        on_message(child, message);
        break;
    }
  }
}

void Guard::on_message(Child& from, const Message& message) {
  const std::string_view text(message.text.data(), message.length);
  constexpr std::string_view kTell = "X_EINHORN_TELL=1\n";
  if (text.starts_with(kTell)) {
    const std::span fds = std::span(message.fds).first(message.fd_count);
    if (&from == &master_) {
      system_.tell_manager(text.substr(kTell.size()), fds);
    }
    for (const int fd : fds) {
      system_.close(fd);
    }
    return;
  }
  const std::string_view name = value_of(text, "FDNAME");
  std::size_t kept = 0;
  if (value_of(text, "FDSTORE") == "1" && message.fd_count > 0) {
    if (store(message.fds[0], name)) {
      kept = 1;
    } else {
      say("ERROR: no room to keep descriptor \"%.*s\"", static_cast<int>(name.size()), name.data());
    }
  }
  kept = on_hand_off_message(from, message, kept);
  for (std::size_t i = kept; i < message.fd_count; ++i) {
    system_.close(message.fds[i]);
  }
  if (value_of(text, "FDSTOREREMOVE") == "1") {
    forget(name);
  }
  int number = 0;
  if (to_int(value_of(text, "EXIT_STATUS"), &number)) {
    word_ = number;
  }
  if (to_int(value_of(text, "X_EINHORN_SIGNALED"), &number) && number > 0 && number < 64) {
    told_signals_ &= ~(std::uint64_t{1} << static_cast<unsigned>(number));
  }
  if (to_int(value_of(text, "X_EINHORN_REAP"), &number)) {
    report_and_reap(number);
  }
  if (value_of(text, "READY") == "1") {
    on_ready(from);
  }
}

void Guard::close_control(Child& child) {
  if (child.control >= 0) {
    system_.close(child.control);
    child.control = -1;
  }
  child.ready = false;
}

bool Guard::tell_master(std::string_view text) {
  return master_.control >= 0 && system_.send(master_.control, text, {});
}

void Guard::say(const char* format, ...) {
  std::array<char, 512> message;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message.data(), message.size(), format, arguments);
  va_end(arguments);
  system_.say(message.data());
}

void Guard::on_master_gone(int code, int status) {
  const std::int64_t now = system_.now_ns();
  const bool was_ready = master_.was_ready;
  const bool lived = was_ready && now - master_.started_ns > kLivedNs;
  close_control(master_);
  const pid_t pid = std::exchange(master_.pid, -1);
  pending_signals_ |= std::exchange(told_signals_, 0);  // perhaps it died before it acted on them
  frozen_ = false;
  if (successor_.pid > 0 && std::exchange(handed_, false) && word_ < 0) {
    say("ERROR: the master (pid %d) died during a hand-off; pid %d goes on", pid, successor_.pid);
    master_ = std::exchange(successor_, Child{});
    return;
  }
  if (successor_.pid > 0) {
    system_.kill(successor_.pid);  // still our unreaped child, so the pid is its own
    close_control(successor_);
    successor_ = Child{};
  }
  if (word_ >= 0) {
    over_ = true;
    return;
  }
  failures_ = lived ? 0 : failures_ + 1;
  const int free_tries = was_ready ? kQuickRestarts : 1;
  if (!was_ready_ && failures_ >= kMaxStartFailures) {
    say("ERROR: no master could be started, giving up");
    word_ = 1;
    over_ = true;
    return;
  }
  std::int64_t delay = 0;
  if (failures_ > free_tries) {
    const int exponent = std::min(failures_ - free_tries, 12);
    const std::int64_t most =
        was_ready ? kSecond : limits::kMasterRestartDelayMost.count() * kSecond;
    delay = std::min<std::int64_t>(10 * kMillisecond << exponent, most);
  }
  if (code == kExited) {
    say("ERROR: the master (pid %d) exited with status %d; starting it again in %d ms", pid, status,
        static_cast<int>(delay / kMillisecond));
  } else {
    say("ERROR: the master (pid %d) was killed by signal %d; starting it again in %d ms", pid,
        status, static_cast<int>(delay / kMillisecond));
  }
  if (delay == 0 && pid >= 0) {
    start_master();
  } else {
    restart_at_ns_ = now + (delay == 0 ? kMillisecond : delay);
  }
}

}  // namespace einhorn::guard
