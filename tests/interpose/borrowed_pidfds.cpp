// A library for LD_PRELOAD under valgrind, which knows neither pidfd_open nor pidfd_send_signal.
//
// A pidfd is asked for of whoever listens on the socket $BORROWED_PIDFDS (tests/valgrind/lender.py),
// a process that runs without valgrind, and comes with its answer. A signal to one goes by its
// number. All other calls go on to the C library.
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

using Syscall = long (*)(long, ...);

Syscall next = nullptr;
sockaddr_un lender{};

// Before any child: those share our memory and may not look anything up.
__attribute__((constructor)) void look_up() {
  next = reinterpret_cast<Syscall>(dlsym(RTLD_NEXT, "syscall"));
  lender.sun_family = AF_UNIX;
  if (const char* path = std::getenv("BORROWED_PIDFDS")) {
    std::snprintf(lender.sun_path, sizeof(lender.sun_path), "%s", path);
  }
}

// Its answer: an errno, and with 0 the descriptor.
long borrow(long pid) {
  const int socket = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  int error = errno;
  int given = -1;
  if (socket >= 0) {
    int number = static_cast<int>(pid);
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec piece{&error, sizeof(error)};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    if (connect(socket, reinterpret_cast<sockaddr*>(&lender), sizeof(lender)) < 0 ||
        send(socket, &number, sizeof(number), MSG_NOSIGNAL) < 0 ||
        recvmsg(socket, &message, MSG_CMSG_CLOEXEC) < static_cast<ssize_t>(sizeof(error))) {
      error = errno != 0 ? errno : EIO;
    } else if (const cmsghdr* part = CMSG_FIRSTHDR(&message)) {
      std::memcpy(&given, CMSG_DATA(part), sizeof(given));
    }
    close(socket);
  }
  errno = error;
  return given;
}

// A dead process has no number in its pidfd any more.
long signal_by_number(int pidfd, int number) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
  FILE* const file = std::fopen(path, "re");
  if (file == nullptr) {
    errno = EBADF;
    return -1;
  }
  char line[128];
  int pid = -1;
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    if (std::strncmp(line, "Pid:", 4) == 0) {
      pid = static_cast<int>(std::strtol(line + 4, nullptr, 10));
      break;
    }
  }
  std::fclose(file);
  if (pid <= 1) {
    errno = ESRCH;
    return -1;
  }
  return kill(pid, number);
}

}  // namespace

extern "C" long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long given[6];
  for (long& one : given) {
    one = va_arg(list, long);
  }
  va_end(list);
  switch (number) {
    case SYS_pidfd_open:
      return borrow(given[0]);
    case SYS_pidfd_send_signal:
      return signal_by_number(static_cast<int>(given[0]), static_cast<int>(given[1]));
    default:
      return next(number, given[0], given[1], given[2], given[3], given[4], given[5]);
  }
}
