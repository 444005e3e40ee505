#include "intercept/ask.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "base/numbers.h"
#include "intercept/processes.h"

namespace einhorn::intercept {
namespace {

constexpr unsigned kPidfdThread = O_EXCL;  // PIDFD_THREAD, since 6.9
constexpr std::size_t kMostDescriptorsLookedAt = 4096;
constexpr std::size_t kMostOfAFile = 256 * 1024;
constexpr int kStopPatienceMs = 500;

std::string task_path(pid_t pid, const char* file) {
  return "/proc/" + std::to_string(pid) + "/" + file;
}

std::string read_file(const std::string& path) {
  std::string text;
  const os::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    return text;
  }
  std::array<char, 4096> buffer;
  ssize_t count = 0;
  while (text.size() < kMostOfAFile && (count = read(fd.get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return text;
}

// What stands behind "key:" and white space in a file of lines; -1: nothing.
long field(std::string_view text, std::string_view key, int base) {
  std::size_t at = text.find(key);
  if (at == std::string_view::npos) {
    return -1;
  }
  const std::string rest(text.substr(at + key.size(), 32));
  return std::strtol(rest.c_str(), nullptr, base);
}

std::string read_link(const std::string& path) {
  std::array<char, 4096> target{};
  const ssize_t length = readlink(path.c_str(), target.data(), target.size());
  return length > 0 ? std::string(target.data(), static_cast<std::size_t>(length)) : "";
}

os::UniqueFd open_process(pid_t pid) {
  os::UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, kPidfdThread)));
  if (!pidfd && errno == EINVAL) {
    const long group = field(read_file(task_path(pid, "status")), "\nTgid:", 10);
    pidfd.reset(static_cast<int>(syscall(SYS_pidfd_open, group, 0)));
  }
  return pidfd;
}

bool is_valid(int notify, const seccomp_notif& notification) {
  std::uint64_t id = notification.id;
  return ioctl(notify, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

void wake(pid_t task) {
  if (ptrace(PTRACE_SEIZE, task, nullptr, nullptr) != 0) {
    return;
  }
  ptrace(PTRACE_INTERRUPT, task, nullptr, nullptr);
  for (int waited = 0; waited < kStopPatienceMs; ++waited) {
    int status = 0;
    if (waitpid(task, &status, __WALL | WNOHANG) != 0) {
      // A signal that was on its way is what has stopped it: it is not ours to keep.
      const bool signaled = WIFSTOPPED(status) && (status >> 16) == 0;
      ptrace(PTRACE_DETACH, task, nullptr, signaled ? WSTOPSIG(status) : 0);
      return;
    }
    poll(nullptr, 0, 1);
  }
  ptrace(PTRACE_DETACH, task, nullptr, nullptr);
}

template <typename T>
T option(int socket, int level, int name, T otherwise) {
  T value = otherwise;
  socklen_t length = sizeof(value);
  return getsockopt(socket, level, name, &value, &length) == 0 ? value : otherwise;
}

}  // namespace

bool closes_on_exec(pid_t pid, int fd) {
  const std::string path = task_path(pid, "fdinfo/") + std::to_string(fd);
  const long flags = field(read_file(path), "flags:", 8);
  return flags > 0 && (flags & O_CLOEXEC) != 0;
}

void make_absolute(pid_t pid, SocketAddress& address) {
  if (address.kind != SocketAddress::Kind::kPath || address.path.empty()) {
    return;
  }
  if (address.path[0] != '/') {
    address.path = read_link(task_path(pid, "cwd")) + "/" + address.path;
  }
  const std::string root = read_link(task_path(pid, "root"));
  if (root.size() > 1 && !address.path.starts_with(root + "/")) {
    address.path = root + address.path;
  }
}

Identity identity_of(int socket) {
  struct stat status {};
  return fstat(socket, &status) == 0 ? Identity{status.st_dev, status.st_ino} : Identity{};
}

void describe_socket(Ask& ask) {
  const int socket = ask.socket.get();
  ask.identity = identity_of(socket);
  ask.domain = option(socket, SOL_SOCKET, SO_DOMAIN, -1);
  ask.type = option(socket, SOL_SOCKET, SO_TYPE, -1);
  ask.v6_only = ask.domain == AF_INET6 && option(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0) != 0;
  ask.nonblocking = (fcntl(socket, F_GETFL) & O_NONBLOCK) != 0;
}

std::optional<Ask> look(int notify, const seccomp_notif& notification, std::string* why) {
  const auto pid = static_cast<pid_t>(notification.pid);
  if (pid <= 0) {
    *why = "it is in a pid namespace that can't be seen from here";
    return std::nullopt;
  }
  Ask ask;
  ask.pid = pid;
  ask.fd = static_cast<int>(notification.data.args[0]);
  const os::UniqueFd process = open_process(pid);
  if (!process) {
    *why = errno == ESRCH ? "" : std::string("pidfd_open: ") + strerrordesc_np(errno);
    return std::nullopt;
  }
  ask.socket.reset(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), ask.fd, 0)));
  if (!ask.socket) {
    // EBADF is the program's own mistake, which the kernel tells it.
    *why = errno == EBADF || errno == ESRCH ? ""
                                            : std::string("pidfd_getfd: ") + strerrordesc_np(errno);
    return std::nullopt;
  }
  describe_socket(ask);
  if (ask.domain < 0) {
    return std::nullopt;  // no socket
  }
  if (notification.data.nr == SYS_bind) {
    std::array<std::uint8_t, kMaxAddressBytes> bytes;
    const auto length = static_cast<int>(notification.data.args[2]);
    if (length <= 0 || static_cast<std::size_t>(length) > bytes.size()) {
      return std::nullopt;  // the kernel refuses it
    }
    iovec here{bytes.data(), static_cast<std::size_t>(length)};
    iovec there{reinterpret_cast<void*>(notification.data.args[1]),
                static_cast<std::size_t>(length)};
    const ssize_t count = process_vm_readv(pid, &here, 1, &there, 1, 0);
    if (count != length) {
      *why = count < 0 && errno != EFAULT && errno != ESRCH
                 ? std::string("process_vm_readv: ") + strerrordesc_np(errno)
                 : "";
      return std::nullopt;
    }
    ask.address = decode_address({bytes.data(), static_cast<std::size_t>(length)});
    make_absolute(pid, ask.address);
  }
  ask.close_on_exec = closes_on_exec(pid, ask.fd);
  // The pid was that of the program that asks as long as it still waits for the answer.
  if (!is_valid(notify, notification)) {
    return std::nullopt;
  }
  return ask;
}

std::string find_in_epoll(pid_t pid, int fd) {
  const std::string wanted = "tfd:";
  for (const int number : numbers_in(task_path(pid, "fd"), kMostDescriptorsLookedAt)) {
    if (read_link(task_path(pid, "fd/") + std::to_string(number)) != "anon_inode:[eventpoll]") {
      continue;
    }
    const std::string text = read_file(task_path(pid, "fdinfo/") + std::to_string(number));
    for (std::size_t at = text.find(wanted); at != std::string::npos;
         at = text.find(wanted, at + 1)) {
      if (std::strtol(text.c_str() + at + wanted.size(), nullptr, 10) == fd) {
        return "descriptor " + std::to_string(number);
      }
    }
  }
  return "";
}

void wake_stuck() {
  const std::string bind_call = std::to_string(SYS_bind) + " ";
  const std::string listen_call = std::to_string(SYS_listen) + " ";
  for (const int pid : numbers_in("/proc", ~std::size_t{0})) {
    if (pid == getpid()) {
      continue;
    }
    for (const int task : tasks_of(pid)) {
      const std::string call = read_file(task_path(task, "syscall"));
      if (call.starts_with(bind_call) || call.starts_with(listen_call)) {
        wake(task);
      }
    }
  }
}

}  // namespace einhorn::intercept
