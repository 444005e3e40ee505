#include "guard/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

#include "guard/messages.h"
#include "os/linux/retry.h"

namespace einhorn::guard {
namespace {

constexpr std::array kForwarded = {SIGINT,  SIGTERM, SIGQUIT, SIGHUP, SIGUSR1,
                                   SIGUSR2, SIGTTIN, SIGTTOU, SIGALRM};
constexpr std::int64_t kLivedNs =
    200 * kMillisecond;                // a master that lived so long is no crash loop
constexpr int kQuickRestarts = 10;     // of masters that had come up, before there are pauses
constexpr int kMaxStartFailures = 10;  // of a master that never came up
constexpr std::size_t kMaxDescriptorsPerMessage = 64;

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGPIPE);
  for (const int number : kForwarded) {
    sigaddset(&set, number);
  }
  return set;
}

}  // namespace

Guard::Guard(Plan& plan) : plan_(plan) {
  tzset();  // it allocates: now, not when the first line of the log has to have a time
}

bool Guard::store(int fd, std::string_view name) {
  if (name.empty() || name.size() >= kNameBytes) {
    return false;
  }
  for (std::size_t i = 0; i < stored_count_; ++i) {
    if (name == stored_[i].name.data()) {
      close(stored_[i].fd);
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
      close(stored_[i].fd);
      stored_[i] = stored_[--stored_count_];
      return;
    }
  }
}

int Guard::run() {
  const sigset_t set = handled_signals();
  sigprocmask(SIG_SETMASK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) {
    say("ERROR: signalfd: %s", strerrordesc_np(errno));
    remove_files();
    return 1;
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (master_.pid < 0) {
    start_master();
  }
  while (!over_) {
    std::int64_t next = 0;
    for (const std::int64_t at : {sweep_at_ns_, restart_at_ns_}) {
      if (at != 0 && (next == 0 || at < next)) {
        next = at;
      }
    }
    int timeout = -1;
    if (next != 0) {
      const std::int64_t left = next - now_ns();
      timeout = left <= 0 ? 0 : static_cast<int>((left + kMillisecond - 1) / kMillisecond);
    }
    std::array<pollfd, 3> watched{
        {{signals_, POLLIN, 0}, {master_.control, POLLIN, 0}, {successor_.control, POLLIN, 0}}};
    if ((pending_signals_ != 0 || unreported_) && master_.ready) {
      watched[1].events |= POLLOUT;
    }
    if (poll(watched.data(), watched.size(), timeout) < 0 && errno != EINTR) {
      say("ERROR: poll: %s", strerrordesc_np(errno));
    }
    if (watched[1].revents != 0) {
      on_control_ready(master_);
    }
    if (watched[2].revents != 0) {
      on_control_ready(successor_);
    }
    if (watched[0].revents != 0) {
      on_signal_ready();
    }
    const std::int64_t now = now_ns();
    if (restart_at_ns_ != 0 && now >= restart_at_ns_) {
      restart_at_ns_ = 0;
      start_master();
    }
    if ((watched[1].revents & POLLOUT) != 0 || (sweep_at_ns_ != 0 && now >= sweep_at_ns_)) {
      sweep_at_ns_ = 0;
      forward_signals();
      sweep();
    }
  }
  remove_files();
  tell_manager("STOPPING=1\nSTATUS=gone");
  return word_;
}

// Starts a master and hands it all that is kept. A failure counts like a death.
void Guard::start_master() {
  std::array<int, 2> pair{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) != 0) {
    say("ERROR: can't start a master: socketpair: %s", strerrordesc_np(errno));
    on_master_gone(CLD_EXITED, 127);
    return;
  }
  const int size = 1 << 20;
  setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  const pid_t pid = vfork();
  if (pid == 0) {
    // Shares our memory until the exec: system calls only.
    const bool in_place = pair[1] == plan_.control;  // dup3 refuses that
    if ((in_place ? fcntl(pair[1], F_SETFD, 0) : dup3(pair[1], plan_.control, 0)) >= 0) {
      set_soft_descriptors(plan_.soft_descriptors);
      syscall(SYS_execveat, plan_.program, "", plan_.arguments, plan_.environment, AT_EMPTY_PATH);
    }
    _exit(127);
  }
  const int error = errno;
  close(pair[1]);
  if (pid < 0) {
    close(pair[0]);
    say("ERROR: can't start a master: fork: %s", strerrordesc_np(error));
    on_master_gone(CLD_EXITED, 127);
    return;
  }
  master_ = Child{pid, pair[0], false, false, now_ns()};
  if (!send_descriptors(master_, "X_EINHORN_GO=1")) {
    say("ERROR: can't hand the descriptors to master %d", pid);
  }
}

bool Guard::send_descriptors(const Child& to, const char* go) {
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
    iovec part{text.data(), static_cast<std::size_t>(length)};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(fds))> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), count * sizeof(int));
    if (os::retry([&] { return sendmsg(to.control, &header, MSG_NOSIGNAL); }) < 0) {
      return false;
    }
  }
  return send(to.control, go, std::strlen(go), MSG_NOSIGNAL) > 0;
}

void Guard::on_signal_ready() {
  std::array<signalfd_siginfo, 16> infos;
  for (;;) {
    const ssize_t count = os::retry([&] { return read(signals_, infos.data(), sizeof(infos)); });
    if (count <= 0) {
      break;
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(count) / sizeof(infos[0]); ++i) {
      const signalfd_siginfo& info = infos[i];
      if (info.ssi_signo == SIGCHLD) {
        // Several deaths may be one SIGCHLD. This one is handled at once and without looking at
        // every child; the master asks for those it sees itself, and the rest is swept up soon.
        report_and_reap(static_cast<pid_t>(info.ssi_pid));
        report_and_reap(master_.pid);
        if (sweep_at_ns_ == 0) {
          sweep_at_ns_ = now_ns() + kSecond;
        }
      } else if (info.ssi_signo != SIGPIPE) {
        pending_signals_ |= std::uint64_t{1} << info.ssi_signo;
      }
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
    if (send(master_.control, text.data(), static_cast<std::size_t>(length), MSG_NOSIGNAL) > 0) {
      pending_signals_ &= ~bit;
      told_signals_ |= bit;
    }
  }
}

// Every dead child there is. Looks at each child, so it is not done once a death.
void Guard::sweep() {
  report_and_reap(successor_.pid);
  report_and_reap(master_.pid);  // before those of whom only a living master can be told
  siginfo_t info;
  for (;;) {
    info.si_pid = 0;
    if (os::retry([&] { return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT); }) != 0 ||
        info.si_pid == 0 || !handle_dead(info.si_pid, info.si_code, info.si_status)) {
      return;
    }
  }
}

bool Guard::report_and_reap(pid_t pid) {
  siginfo_t info;
  info.si_pid = 0;
  if (pid <= 0 ||
      os::retry([&] {
        return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT);
      }) != 0 ||
      info.si_pid == 0) {
    return false;
  }
  return handle_dead(info.si_pid, info.si_code, info.si_status);
}

// False: it has to stay a zombie for now, because nobody could be told.
bool Guard::handle_dead(pid_t pid, int code, int status) {
  if (pid == master_.pid || pid == successor_.pid) {
    // What it said before it died still counts. READY makes a successor the master; and it sweeps,
    // so this death may have been seen to already.
    on_control_ready(pid == master_.pid ? master_ : successor_);
    if (pid != master_.pid && pid != successor_.pid) {
      return !over_;
    }
  }
  if (pid == master_.pid) {
    siginfo_t info;
    os::retry([&] { return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED); });
    on_master_gone(code, status);
    return !over_;
  }
  if (pid == successor_.pid) {
    siginfo_t info;
    os::retry([&] { return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED); });
    on_successor_gone();
    return true;
  }
  if (!master_.ready) {
    unreported_ = true;
    return false;
  }
  std::array<char, 64> text;
  const int length =
      std::snprintf(text.data(), text.size(), "X_EINHORN_EXITED=%d %d %d", pid, code, status);
  if (send(master_.control, text.data(), static_cast<std::size_t>(length), MSG_NOSIGNAL) < 0) {
    unreported_ = true;
    return false;
  }
  unreported_ = false;
  siginfo_t info;
  os::retry([&] { return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG); });
  return true;
}

void Guard::on_control_ready(Child& child) {
  std::array<char, 4096> text;
  std::array<int, 16> fds;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(fds))> control;
  while (child.control >= 0) {
    iovec part{text.data(), text.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t count =
        os::retry([&] { return recvmsg(child.control, &header, MSG_CMSG_CLOEXEC); });
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return;
    }
    if (count < 0 && errno == ECONNRESET) {
      // It closed with something unread. The error comes before what it said, and only once.
      continue;
    }
    if (count <= 0) {
      close_control(child);
      sweep_at_ns_ = now_ns() + 10 * kMillisecond;  // its death may be one SIGCHLD with another's
      return;
    }
    std::size_t fd_count = 0;
    for (cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr;
         rights = CMSG_NXTHDR(&header, rights)) {
      if (rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        fd_count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        std::memcpy(fds.data(), CMSG_DATA(rights), fd_count * sizeof(int));
      }
    }
    on_message(child, {text.data(), static_cast<std::size_t>(count)}, fds.data(), fd_count);
  }
}

void Guard::on_message(Child& from, std::string_view text, const int* fds, std::size_t fd_count) {
  const std::string_view name = value_of(text, "FDNAME");
  std::size_t kept = 0;
  if (value_of(text, "FDSTORE") == "1" && fd_count > 0) {
    if (store(fds[0], name)) {
      kept = 1;
    } else {
      say("ERROR: no room to keep descriptor \"%.*s\"", static_cast<int>(name.size()), name.data());
    }
  }
  on_hand_off_message(from, text, fds, fd_count, &kept);
  for (std::size_t i = kept; i < fd_count; ++i) {
    close(fds[i]);
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
    close(child.control);
    child.control = -1;
  }
  child.ready = false;
}

void Guard::on_master_gone(int code, int status) {
  const std::int64_t now = now_ns();
  const bool was_ready = master_.was_ready;
  const bool lived = was_ready && now - master_.started_ns > kLivedNs;
  close_control(master_);
  const pid_t pid = std::exchange(master_.pid, -1);
  pending_signals_ |= std::exchange(told_signals_, 0);  // perhaps it died before it acted on them
  frozen_ = false;
  if (successor_.pid > 0) {
    kill(successor_.pid, SIGKILL);  // still our unreaped child, so the pid is its own
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
  if (code == CLD_EXITED) {
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
