// What others see of the guard: its log, its files, its word to the service manager.
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "guard/linux_system.h"
#include "guard/messages.h"
#include "os/linux/retry.h"
#include "os/own_file.h"

namespace einhorn::guard {
namespace {

constexpr int kManagerPatienceMs = 100;  // until a full queue has room again

}  // namespace

void LinuxSystem::write_pid_file() {
  if (plan_.pidfile[0] == '\0') {
    return;
  }
  const os::OpenedFile file = os::open_own_file(plan_.pidfile.data(), 0644);
  const int fd = file.fd;
  if (fd < 0) {
    complain("ERROR: can't write %s: %s", plan_.pidfile.data(), os::reason_of(file));
    return;
  }
  std::array<char, 16> text;
  const int length = std::snprintf(text.data(), text.size(), "%d", getpid());
  if (ftruncate(fd, 0) != 0 || write(fd, text.data(), static_cast<std::size_t>(length)) != length) {
    complain("ERROR: can't write %s: %s", plan_.pidfile.data(), strerrordesc_np(errno));
  }
  close(fd);
}

void LinuxSystem::remove_files() {
  if (plan_.pidfile[0] != '\0') {
    // Only our own: somebody may have replaced it.
    std::array<char, 16> text{};
    const int fd = open(plan_.pidfile.data(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int pid = 0;
    if (fd >= 0) {
      const ssize_t count = read(fd, text.data(), text.size() - 1);
      close(fd);
      if (count > 0 && to_int({text.data(), static_cast<std::size_t>(count)}, &pid) &&
          pid == getpid()) {
        unlink(plan_.pidfile.data());
      }
    }
  }
  for (std::size_t i = 0; i < plan_.file_count; ++i) {
    const OwnFile& file = plan_.files[i];
    struct stat status {};
    if (lstat(file.path.data(), &status) == 0 && status.st_dev == file.device &&
        status.st_ino == file.inode) {
      unlink(file.path.data());
    }
  }
}

// One datagram to the service manager that started us, if there is one.
void LinuxSystem::tell_manager(std::string_view text, std::span<const int> fds) {
  const std::size_t length = strnlen(plan_.notify_socket.data(), plan_.notify_socket.size());
  sockaddr_un address{};
  if (length == 0 || length > sizeof(address.sun_path)) {
    return;
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, plan_.notify_socket.data(), length);
  if (address.sun_path[0] == '@') {
    address.sun_path[0] = '\0';
  }
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  // A manager that is not there, or does not read, must not stop us. Only what is said once waits
  // for a place in its queue, and not for long.
  if (socket >= 0 &&
      connect(socket, reinterpret_cast<const sockaddr*>(&address),
              static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length)) == 0) {
    if (!text.starts_with("STATUS=") && !text.starts_with("WATCHDOG=")) {
      pollfd room{socket, POLLOUT, 0};
      poll(&room, 1, kManagerPatienceMs);
    }
    fcntl(socket, F_SETFL, O_NONBLOCK);
    send(socket, text, fds);
  }
  if (socket >= 0) {
    close(socket);
  }
}

std::int64_t LinuxSystem::manager_watchdog_us() {
  return plan_.notify_socket[0] == '\0' ? -1 : plan_.watchdog_us;
}

std::uint64_t LinuxSystem::set_soft_descriptors(std::uint64_t limit) {
  rlimit descriptors{};
  if (limit == 0 || getrlimit(RLIMIT_NOFILE, &descriptors) != 0) {
    return 0;
  }
  const rlim_t before = descriptors.rlim_cur;
  descriptors.rlim_cur = std::min<rlim_t>(limit, descriptors.rlim_max);
  setrlimit(RLIMIT_NOFILE, &descriptors);
  return before;
}

void LinuxSystem::complain(const char* format, ...) {
  std::array<char, 512> message;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message.data(), message.size(), format, arguments);
  va_end(arguments);
  say(message.data());
}

// A line of the log, where and as the master writes it.
void LinuxSystem::say(const char* message) {
  std::array<char, 1024> line;
  int length = 0;
  if (plan_.log_json) {
    std::array<char, 512> escaped{};
    for (std::size_t i = 0; i + 1 < escaped.size() && message[i] != '\0'; ++i) {
      const bool special =
          message[i] == '"' || message[i] == '\\' || (message[i] > '\0' && message[i] < ' ');
      // Our own texts and paths: nothing that would need more than this.
      escaped[i] = special ? '\'' : message[i];
    }
    timespec time{};
    clock_gettime(CLOCK_REALTIME, &time);
    tm utc{};
    gmtime_r(&time.tv_sec, &utc);  // allocates only where tzset has not been called
    length = std::snprintf(line.data(), line.size(),
                           "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ\",\"level\":\"error\","
                           "\"event\":\"guard\",\"master\":%d,\"message\":\"%s\"}\n",
                           utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                           utc.tm_sec, time.tv_nsec, getpid(), escaped.data());
  } else {
    length = std::snprintf(line.data(), line.size(), "[GUARD %d] %s\n", getpid(), message);
  }
  int fd = STDERR_FILENO;
  if (plan_.log_file[0] != '\0') {
    fd = os::open_log_file(plan_.log_file.data()).fd;
  }
  // A reader that does not read must not stop the guard.
  pollfd output{fd, POLLOUT, 0};
  if (poll(&output, 1, 0) == 1 && (output.revents & POLLOUT) != 0) {
    os::retry([&] { return write(fd, line.data(), static_cast<std::size_t>(length)); });
  }
  if (fd != STDERR_FILENO && fd >= 0) {
    close(fd);
  }
}

}  // namespace einhorn::guard
