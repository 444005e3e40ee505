// libeinhorn-intercept.so, loaded into programs by LD_PRELOAD where seccomp is not to be had: asks
// the supervisor (intercept/door.h) at each bind and listen, as the filter would.
//
// It lives in other people's programs: no C++ runtime, no memory of its own but the stack, no lock,
// errno as the call itself would leave it. Safe in a signal handler and between fork and exec, once
// the constructor has run. Where nobody is at the other end the call is the kernel's.
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "interposed/question.h"

// By the name that C libraries before 2.34 have, too: there it is in libdl.so.2.
#if defined(__x86_64__) && defined(__GLIBC__)
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
#endif

namespace {

using namespace einhorn::interposed;

using BindCall = int (*)(int, const sockaddr*, socklen_t);
using ListenCall = int (*)(int, int);
using AnyCall = long (*)(long, ...);

BindCall real_bind = nullptr;
ListenCall real_listen = nullptr;
AnyCall real_syscall = nullptr;

// Where to ask; no length: nowhere.
sockaddr_un door = {};
socklen_t door_length = 0;
Question form = {};

constexpr int kPauseMs = 10;

template <typename Function>
void find_next(Function& function, const char* name) {
  if (function == nullptr) {
    function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
  }
}

void find_all() {
  find_next(real_bind, "bind");
  find_next(real_listen, "listen");
  find_next(real_syscall, "syscall");
}

__attribute__((constructor)) void set_up() {
  find_all();
  const char* text = getenv(kVariable);
  if (text == nullptr) {
    return;
  }
  const char* colon = strchr(text, ':');
  if (colon == nullptr || colon == text ||
      static_cast<std::size_t>(colon - text) > sizeof(door.sun_path) - 1) {
    return;
  }
  const auto name_bytes = static_cast<std::size_t>(colon - text);
  char* rest = nullptr;
  form.epoch = strtoull(colon + 1, &rest, 10);
  if (*rest != ':') {
    return;
  }
  form.slot = static_cast<std::uint32_t>(strtoul(rest + 1, &rest, 10));
  if (*rest != ':' || strlen(rest + 1) != kTokenBytes) {
    return;
  }
  memcpy(form.token, rest + 1, kTokenBytes);
  memcpy(form.magic, kQuestionMagic, sizeof(form.magic));
  door.sun_family = AF_UNIX;
  memcpy(door.sun_path + 1, text, name_bytes);
  door_length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_bytes);
}

int option(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

bool may_be_shared(int fd) {
  const int domain = option(fd, SO_DOMAIN);
  const int type = option(fd, SO_TYPE);
  return (domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX) &&
         (type == SOCK_STREAM || type == SOCK_DGRAM);
}

int connect_to_door() {
  const int line = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (line < 0) {
    return -1;
  }
  while (connect(line, reinterpret_cast<const sockaddr*>(&door), door_length) != 0) {
    if (errno != EINTR) {
      const int why = errno;
      close(line);
      errno = why;
      return -1;
    }
  }
  return line;
}

// False: it could not be sent, errno says why. The address is only read by the kernel.
bool send_question(int line, Question& question, const void* address) {
  iovec parts[2] = {{&question, sizeof(question)}, {const_cast<void*>(address), question.length}};
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = question.length > 0 ? 2 : 1;
  message.msg_control = rights;
  message.msg_controllen = sizeof(rights);
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(head), &question.fd, sizeof(int));
  for (;;) {
    if (sendmsg(line, &message, MSG_NOSIGNAL) >= 0) {
      return true;
    }
    if (errno != EINTR) {
      return false;
    }
  }
}

// False: whoever was to answer is gone.
bool receive_reply(int line, Reply& reply, int* fd) {
  iovec part = {&reply, sizeof(reply)};
  alignas(cmsghdr) char rights[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = rights;
  message.msg_controllen = sizeof(rights);
  ssize_t count = -1;
  do {
    count = recvmsg(line, &message, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  if (head != nullptr && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
    memcpy(fd, CMSG_DATA(head), sizeof(int));
  }
  return count == static_cast<ssize_t>(sizeof(reply)) &&
         memcmp(reply.magic, kQuestionMagic, sizeof(reply.magic)) == 0;
}

enum class Outcome { kKernel, kReturn0, kFailed };

// What the supervisor's word makes of this call; with kFailed errno is set.
Outcome ask(Call call, int fd, const void* address, socklen_t length) {
  if (door_length == 0 || !may_be_shared(fd)) {
    return Outcome::kKernel;
  }
  Question question = form;
  question.call = call;
  question.fd = fd;
  question.close_on_exec = (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 ? 1 : 0;
  question.length = length;
  for (;;) {
    const int line = connect_to_door();
    if (line < 0) {
      // No descriptor left is what the program has to hear: its own call would not tell it.
      return errno == EMFILE || errno == ENFILE ? Outcome::kFailed : Outcome::kKernel;
    }
    if (!send_question(line, question, address) && errno != EPIPE && errno != ECONNRESET) {
      close(line);
      return Outcome::kKernel;  // a bad pointer: the kernel says so to whoever asks it
    }
    Reply reply = {};
    int shared = -1;
    const bool answered = receive_reply(line, reply, &shared);
    close(line);
    if (!answered) {
      // It died before it could answer; another one comes.
      if (shared >= 0) {
        close(shared);
      }
      poll(nullptr, 0, kPauseMs);
      continue;
    }
    if (reply.verdict == kShare) {
      if (shared < 0) {
        errno = EMFILE;  // there was no room for it
        return Outcome::kFailed;
      }
      const int placed = dup3(shared, fd, question.close_on_exec != 0 ? O_CLOEXEC : 0);
      const int why = errno;
      close(shared);
      errno = why;
      return placed < 0 ? Outcome::kFailed : Outcome::kReturn0;
    }
    if (shared >= 0) {
      close(shared);
    }
    if (reply.verdict == kDone) {
      return Outcome::kReturn0;
    }
    if (reply.verdict == kError) {
      errno = reply.error;
      return Outcome::kFailed;
    }
    return Outcome::kKernel;
  }
}

int finish(Outcome outcome, int errno_before) {
  if (outcome == Outcome::kReturn0) {
    errno = errno_before;
    return 0;
  }
  return -1;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int bind(int fd, const sockaddr* address,
                                                socklen_t length) noexcept {
  const int before = errno;
  Outcome outcome = Outcome::kKernel;
  if (address != nullptr && length > 0 && length <= kMostAddressBytes) {
    outcome = ask(kBind, fd, address, length);
  }
  if (outcome != Outcome::kKernel) {
    return finish(outcome, before);
  }
  errno = before;
  find_all();
  return real_bind(fd, address, length);
}

__attribute__((visibility("default"))) int listen(int fd, int backlog) noexcept {
  const int before = errno;
  const Outcome outcome = ask(kListen, fd, nullptr, 0);
  if (outcome != Outcome::kKernel) {
    return finish(outcome, before);
  }
  errno = before;
  find_all();
  return real_listen(fd, backlog);
}

// Programs that call the kernel by number do it here, unless they are their own libc. Reading more
// arguments than were given reads what happens to be there, as the C library's own code does.
__attribute__((visibility("default"))) long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long words[6];
  for (long& word : words) {
    word = va_arg(list, long);
  }
  va_end(list);
  if (door_length != 0) {
    if (number == SYS_bind) {
      return bind(static_cast<int>(words[0]), reinterpret_cast<const sockaddr*>(words[1]),
                  static_cast<socklen_t>(words[2]));
    }
    if (number == SYS_listen) {
      return listen(static_cast<int>(words[0]), static_cast<int>(words[1]));
    }
    // Its bind would not be seen. "1": it is to be left alone.
    if (number == SYS_io_uring_setup && getenv("EINHORN_INTERCEPT_IO_URING") == nullptr) {
      errno = ENOSYS;
      return -1;
    }
  }
  find_all();
  return real_syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}
}
