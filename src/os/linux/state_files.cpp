#include "os/state_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/limits.h"
#include "os/linux/retry.h"

namespace einhorn::os {
namespace {

constexpr int kCommandBacklog = 1024;
constexpr int kWriterPatienceMs = 60000;  // with whoever writes what we read to its end

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return make_error("socket path " + path, "it must have 1 to " +
                                                 std::to_string(sizeof(address.sun_path) - 1) +
                                                 " bytes, not " + std::to_string(path.size()));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Opens a small file of ours for writing, never through a link.
Result<UniqueFd> open_own(const std::string& path, mode_t mode) {
  UniqueFd file(retry([&] {
    return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK,
                  mode);
  }));
  if (!file) {
    if (errno == ELOOP) {
      return make_error("open " + path, "it is a symbolic link; remove it or name another path");
    }
    return Error{errno, "open " + path, ""};
  }
  struct stat status {};
  if (fstat(file.get(), &status) != 0) {
    return Error{errno, "fstat " + path, ""};
  }
  if (!S_ISREG(status.st_mode)) {
    return make_error("open " + path, "it is no regular file; remove it or name another path");
  }
  if (status.st_uid != geteuid() && geteuid() != 0) {
    return make_error("open " + path, "it belongs to user " + std::to_string(status.st_uid) +
                                          "; remove it or name another path");
  }
  if (status.st_uid != geteuid() || status.st_nlink != 1) {
    // Root too: in a directory for everybody such a file is somebody's trap.
    return make_error("open " + path,
                      status.st_nlink != 1
                          ? std::string("it has other names (hard links); remove it")
                          : "it belongs to user " + std::to_string(status.st_uid) +
                                "; remove it or name another path");
  }
  return file;
}

// Removes a socket file that nobody listens at. Errors: it is not a socket, or not ours.
Status remove_dead_socket(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    return errno == ENOENT ? Status(Ok{}) : Status(Error{errno, "stat " + path, ""});
  }
  if (!S_ISSOCK(status.st_mode)) {
    return make_error("Non-socket file present at Einhorn command socket path " + path,
                      "either remove that file and restart Einhorn, or pass a `-d PATH_TO_SOCKET` "
                      "to change the command socket location");
  }
  if (status.st_uid != geteuid()) {
    return make_error("socket path " + path, "the socket there belongs to user " +
                                                 std::to_string(status.st_uid) +
                                                 "; remove it or name another path with -d");
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error{errno, "remove " + path, ""};
  }
  return Ok{};
}

// A group by its name or number.
std::optional<gid_t> group_id(const std::string& name) {
  if (const struct group* entry = getgrnam(name.c_str())) {
    return entry->gr_gid;
  }
  gid_t number = 0;
  const auto [end, failed] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (failed != std::errc{} || end != name.data() + name.size()) {
    return std::nullopt;
  }
  return number;
}

Result<SocketFile> bind_socket(const std::string& path, int type, std::uint32_t mode) {
  Result<sockaddr_un> address = address_of(path);
  if (!address) {
    return address.error();
  }
  if (Status removed = remove_dead_socket(path); !removed) {
    return removed.error();
  }
  SocketFile socket{UniqueFd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)), 0, 0};
  if (!socket.fd) {
    return Error{errno, "socket", ""};
  }
  const mode_t before = umask(0777 & ~mode);  // right from birth: no moment when it is more open
  const int bound =
      ::bind(socket.fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address));
  const int error = errno;
  umask(before);
  if (bound != 0) {
    return Error{error, "bind unix:" + path, ""};
  }
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    return Error{errno, "stat " + path, ""};
  }
  socket.device = status.st_dev;
  socket.inode = status.st_ino;
  return socket;
}

}  // namespace

Result<UniqueFd> lock_file(const std::string& path) {
  Result<UniqueFd> file = open_own(path, 0600);
  if (!file) {
    return file;
  }
  if (flock(file->get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return make_error("lock " + path,
                        "File lock already acquired by another Einhorn process. This likely "
                        "indicates you tried to run Einhorn masters with the same cmd_name at the "
                        "same time. This is a pretty rare race condition");
    }
    return Error{errno, "lock " + path, ""};
  }
  return file;
}

Result<UniqueFd> connect_if_alive(const std::string& path) {
  Result<sockaddr_un> address = address_of(path);
  if (!address) {
    return address.error();
  }
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    return UniqueFd();
  }
  if (!S_ISSOCK(status.st_mode)) {
    return make_error("Non-socket file present at Einhorn command socket path " + path,
                      "either remove that file and restart Einhorn, or pass a `-d PATH_TO_SOCKET` "
                      "to change the command socket location");
  }
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) {
    return Error{errno, "socket", ""};
  }
  if (retry([&] {
        return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address),
                         sizeof(*address));
      }) == 0) {
    return socket;
  }
  if (errno == ECONNREFUSED || errno == ENOENT) {
    return UniqueFd();
  }
  return Error{errno, "connect to the Einhorn command socket " + path, ""};
}

Result<SocketFile> open_command_socket(const std::string& path, std::uint32_t mode,
                                       const std::string& group) {
  Result<SocketFile> socket = bind_socket(path, SOCK_STREAM, mode);
  if (!socket) {
    return socket;
  }
  if (!group.empty()) {
    const std::optional<gid_t> id = group_id(group);
    if (!id || lchown(path.c_str(), static_cast<uid_t>(-1), *id) != 0) {
      const int error = id ? errno : 0;
      unlink(path.c_str());
      return Error{error, "--socket-group " + group, id ? "" : "no such group"};
    }
  }
  if (::listen(socket->fd.get(), kCommandBacklog) != 0) {
    const int error = errno;
    unlink(path.c_str());
    return Error{error, "listen unix:" + path, ""};
  }
  return socket;
}

Result<SocketFile> open_notify_socket(const std::string& path, std::uint32_t mode) {
  Result<SocketFile> socket = bind_socket(path, SOCK_DGRAM, mode);
  if (socket) {
    const int on = 1;
    setsockopt(socket->fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    const int size = 8 << 20;
    setsockopt(socket->fd.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
  }
  return socket;
}

Status write_pid_file(const std::string& path, Pid pid) {
  Result<UniqueFd> file = open_own(path, 0644);
  if (!file) {
    return file.error();
  }
  const std::string text = std::to_string(pid);
  if (ftruncate(file->get(), 0) != 0 || retry([&] {
                                          return ::pwrite(file->get(), text.data(), text.size(), 0);
                                        }) != static_cast<ssize_t>(text.size())) {
    return Error{errno, "write " + path, ""};
  }
  return Ok{};
}

void remove_file(const std::string& path) { unlink(path.c_str()); }

std::vector<std::int32_t> inherited_descriptors() {
  std::vector<std::int32_t> found;
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) {
    return found;
  }
  while (const dirent* entry = readdir(directory)) {
    const int fd = std::atoi(entry->d_name);
    if (fd >= 3 && fd != dirfd(directory)) {
      const int flags = fcntl(fd, F_GETFD);
      if (flags >= 0 && (flags & FD_CLOEXEC) == 0) {
        found.push_back(fd);
      }
    }
  }
  closedir(directory);
  std::sort(found.begin(), found.end());
  return found;
}

Result<std::string> read_to_end(int fd) {
  const UniqueFd file(fd);
  lseek(fd, 0, SEEK_SET);  // a memory file was left at its end; a pipe can't seek and need not
  std::string text;
  std::array<char, 64 * 1024> buffer;
  for (;;) {
    const ssize_t count = retry([&] { return ::read(fd, buffer.data(), buffer.size()); });
    if (count < 0 && errno == EAGAIN) {  // Ruby makes its pipes nonblocking
      pollfd readable{fd, POLLIN, 0};
      if (retry([&] { return ::poll(&readable, 1, kWriterPatienceMs); }) == 1) {
        continue;
      }
      errno = ETIMEDOUT;
    }
    if (count < 0) {
      return Error{errno, "read descriptor " + std::to_string(fd), ""};
    }
    if (count == 0) {
      return text;
    }
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > limits::kMaxSnapshotBytes) {
      return Error{EFBIG, "read descriptor " + std::to_string(fd), ""};
    }
  }
}

void open_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) {
      // The lowest free number is this one.
      static_cast<void>(::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY));
    }
  }
}

std::uint32_t cpu_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) {
    return static_cast<std::uint32_t>(CPU_COUNT(&set));
  }
  return 1;
}

}  // namespace einhorn::os
