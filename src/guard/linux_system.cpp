#include "guard/linux_system.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include "guard/messages.h"
#include "os/linux/retry.h"

namespace einhorn::guard {
namespace {

constexpr std::size_t kMostDescriptors = 64;  // sent at once

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGCHLD, SIGPIPE, SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2,
                           SIGTTIN, SIGTTOU, SIGALRM}) {
    sigaddset(&set, number);
  }
  return set;
}

// Of this process, up to its next exec; those that it has not got are not missed. An errno; 0: done.
int keep_capabilities(std::uint64_t kept) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (syscall(SYS_capget, &header, data.data()) != 0) {
    return errno;
  }
  for (std::size_t half = 0; half < data.size(); ++half) {
    data[half].permitted &= static_cast<std::uint32_t>(kept >> (32 * half));
    data[half].effective = data[half].permitted;
    data[half].inheritable &= data[half].permitted;
  }
  return syscall(SYS_capset, &header, data.data()) == 0 ? 0 : errno;
}

}  // namespace

LinuxSystem::LinuxSystem(Plan& plan) : plan_(plan) {
  tzset();  // it allocates: now, not when the first line of the log has to have a time
}

std::int64_t LinuxSystem::now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * kSecond + time.tv_nsec;
}

int LinuxSystem::begin() {
  const sigset_t set = handled_signals();
  sigprocmask(SIG_SETMASK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) {
    return errno;
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (plan_.capabilities) {
    return keep_capabilities(*plan_.capabilities);
  }
  return 0;
}

Awake LinuxSystem::wait(const Watched& watched) {
  int timeout = -1;
  if (watched.until_ns != 0) {
    const std::int64_t left = watched.until_ns - now_ns();
    timeout = left <= 0 ? 0 : static_cast<int>((left + kMillisecond - 1) / kMillisecond);
  }
  std::array<pollfd, 3> entries{
      {{signals_, POLLIN, 0}, {watched.master, POLLIN, 0}, {watched.successor, POLLIN, 0}}};
  if (watched.master_room) {
    entries[1].events |= POLLOUT;
  }
  if (poll(entries.data(), entries.size(), timeout) < 0) {
    if (errno != EINTR) {
      complain("ERROR: poll: %s", strerrordesc_np(errno));
    }
    return {};
  }
  return {entries[0].revents != 0, entries[1].revents != 0, (entries[1].revents & POLLOUT) != 0,
          entries[2].revents != 0};
}

bool LinuxSystem::next_signal(Signal& signal) {
  signalfd_siginfo info;
  if (os::retry([&] { return read(signals_, &info, sizeof(info)); }) != sizeof(info)) {
    return false;
  }
  signal.number = static_cast<int>(info.ssi_signo);
  signal.child = static_cast<pid_t>(info.ssi_pid);
  return true;
}

Heard LinuxSystem::receive(int socket, Message& message) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(message.fds))> control;
  for (;;) {
    iovec part{message.text.data(), message.text.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t count = os::retry([&] { return recvmsg(socket, &header, MSG_CMSG_CLOEXEC); });
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return Heard::kNothing;
    }
    if (count < 0 && errno == ECONNRESET) {
      // It closed with something unread. The error comes before what it said, and only once.
      continue;
    }
    if (count <= 0) {
      return Heard::kClosed;
    }
    message.length = static_cast<std::size_t>(count);
    message.fd_count = 0;
    for (cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr;
         rights = CMSG_NXTHDR(&header, rights)) {
      if (rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        message.fd_count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        std::memcpy(message.fds.data(), CMSG_DATA(rights), message.fd_count * sizeof(int));
      }
    }
    return Heard::kMessage;
  }
}

bool LinuxSystem::send(int socket, std::string_view text, std::span<const int> fds) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMostDescriptors)> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  return os::retry([&] { return sendmsg(socket, &header, MSG_NOSIGNAL); }) > 0;
}

void LinuxSystem::close(int fd) { ::close(fd); }

void LinuxSystem::set_nonblocking(int fd) { fcntl(fd, F_SETFL, O_NONBLOCK); }

void LinuxSystem::set_inherited(int fd, bool inherited) {
  fcntl(fd, F_SETFD, inherited ? 0 : FD_CLOEXEC);
}

Started LinuxSystem::start_master() {
  std::array<int, 2> pair{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) != 0) {
    return {-1, -1, "socketpair", errno};
  }
  const int size = 1 << 20;
  setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  os::IdentityStep step = os::IdentityStep::kNone;
  volatile int refused = 0;
  const pid_t pid = vfork();
  if (pid == 0) {
    // Shares our memory until the exec: system calls only.
    const bool in_place = pair[1] == plan_.control;  // dup3 refuses that
    if ((in_place ? fcntl(pair[1], F_SETFD, 0) : dup3(pair[1], plan_.control, 0)) >= 0) {
      set_soft_descriptors(plan_.soft_descriptors);
      if (plan_.master_identity != nullptr) {
        refused = plan_.master_identity->become(step);
      }
      if (refused == 0) {
        syscall(SYS_execveat, plan_.program, "", plan_.arguments, plan_.environment, AT_EMPTY_PATH);
      }
    }
    _exit(127);
  }
  const int error = errno;
  ::close(pair[1]);
  if (pid > 0 && refused != 0) {
    ::close(pair[0]);
    reap(pid);
    return {-1, -1, os::name_of(step), refused};
  }
  if (pid < 0) {
    ::close(pair[0]);
    return {-1, -1, "fork", error};
  }
  return {pid, pair[0], nullptr, 0};
}

Look LinuxSystem::look_at(pid_t pid, Death& death) {
  siginfo_t info;
  info.si_pid = 0;
  if (os::retry([&] {
        return waitid(pid > 0 ? P_PID : P_ALL, static_cast<id_t>(pid), &info,
                      WEXITED | WNOHANG | WNOWAIT);
      }) != 0) {
    return Look::kNoChild;
  }
  death = {info.si_pid, info.si_code, info.si_status};
  return info.si_pid == 0 ? Look::kAlive : Look::kDead;
}

void LinuxSystem::reap(pid_t pid) {
  siginfo_t info;
  os::retry([&] { return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG); });
}

void LinuxSystem::kill(pid_t pid) { ::kill(pid, SIGKILL); }

int LinuxSystem::create_state() {
  const int state = memfd_create("einhorn-guard", 0);
  if (state >= 0) {
    fchmod(state, S_IRUSR | S_IWUSR);
  }
  return state;
}

int LinuxSystem::write_state(int state, std::string_view text) {
  const ssize_t count = os::retry([&] { return write(state, text.data(), text.size()); });
  if (count < 0) {
    return errno;
  }
  return static_cast<std::size_t>(count) == text.size() ? 0 : ENOSPC;
}

int LinuxSystem::execute(int program, int state) {
  std::array<char, 16> number;
  std::snprintf(number.data(), number.size(), "%d", state);
  char* const before = std::exchange(plan_.arguments[2], number.data());
  const std::uint64_t raised = set_soft_descriptors(plan_.soft_descriptors);
  syscall(SYS_execveat, program, "", plan_.arguments, plan_.environment, AT_EMPTY_PATH);
  const int error = errno;
  set_soft_descriptors(raised);
  plan_.arguments[2] = before;
  return error;
}

}  // namespace einhorn::guard
