#include "os/state_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/limits.h"
#include "base/numbers.h"
#include "os/descriptors.h"
#include "os/identity.h"
#include "os/linux/retry.h"
#include "os/own_file.h"

namespace einhorn::os {
namespace {

constexpr int kCommandBacklog = 1024;
constexpr timeval kConnectPatience{10, 0};  // with a master that accepts nobody
constexpr int kWriterPatienceMs = 60000;    // with whoever writes what we read to its end

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

Error foreign_socket(const std::string& path, uid_t owner) {
  return make_error("socket path " + path, "the socket there belongs to user " +
                                               std::to_string(owner) +
                                               "; remove it or name another path with -d");
}

// Whether there is a socket file, which is then our own. Errors: it is not, or no socket.
Result<bool> find_own_socket(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    return errno == ENOENT ? Result<bool>(false) : Error{errno, "stat " + path, ""};
  }
  if (!S_ISSOCK(status.st_mode)) {
    return make_error("Non-socket file present at Einhorn command socket path " + path,
                      "either remove that file and restart Einhorn, or pass a `-d PATH_TO_SOCKET` "
                      "to change the command socket location");
  }
  if (status.st_uid != geteuid()) {
    return foreign_socket(path, status.st_uid);
  }
  return true;
}

// Removes a socket file that nobody listens at. Errors: it is not a socket, or not ours.
Status remove_dead_socket(const std::string& path) {
  const Result<bool> found = find_own_socket(path);
  if (!found) {
    return found.error();
  }
  if (*found && unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error{errno, "remove " + path, ""};
  }
  return Ok{};
}

// Through a descriptor of the very file we made, so that nobody can put another in its place.
Status give_to_group(const std::string& path, const SocketFile& socket, const std::string& group) {
  const std::string what = "--socket-group " + group;
  const Result<std::uint32_t> id = find_group(group);
  if (!id) {
    return make_error(what, "no such group");
  }
  const UniqueFd file(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!file || fstat(file.get(), &status) != 0) {
    return Error{errno, what, ""};
  }
  if (status.st_dev != socket.device || status.st_ino != socket.inode) {
    return make_error(what, "somebody else replaced " + path);
  }
  if (fchownat(file.get(), "", static_cast<uid_t>(-1), *id, AT_EMPTY_PATH) != 0) {
    return Error{errno, what, ""};
  }
  return Ok{};
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
  if (type == SOCK_DGRAM) {
    const int on = 1;  // before it can be found: no message without its sender
    setsockopt(socket.fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
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
  const OpenedFile opened = open_own_file(path.c_str(), 0600);
  if (opened.fd < 0) {
    return open_error(path, opened, "-f");
  }
  UniqueFd file(opened.fd);
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
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
  // Whoever listens there may answer that we should go on with its pool: programs that we would
  // run. Only our own user and root may say that.
  if (status.st_uid != geteuid() && status.st_uid != 0) {
    return foreign_socket(path, status.st_uid);
  }
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) {
    return Error{errno, "socket", ""};
  }
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kConnectPatience, sizeof(kConnectPatience));
  if (retry([&] {
        return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address),
                         sizeof(*address));
      }) == 0) {
    const Peer peer = peer_of(socket.get());
    if (peer.uid != geteuid() && peer.uid != 0) {
      return foreign_socket(path, peer.uid);
    }
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
    if (Status given = give_to_group(path, *socket, group); !given) {
      unlink(path.c_str());
      return given.error();
    }
  }
  if (::listen(socket->fd.get(), kCommandBacklog) != 0) {
    const int error = errno;
    unlink(path.c_str());
    return Error{error, "listen unix:" + path, ""};
  }
  return socket;
}

Result<SocketFile> open_notify_socket(const std::string& path, std::uint32_t mode,
                                      const std::string& group) {
  Result<SocketFile> socket = bind_socket(path, SOCK_DGRAM, mode);
  if (socket && !group.empty()) {
    if (Status given = give_to_group(path, *socket, group); !given) {
      unlink(path.c_str());
      return given.error();
    }
  }
  if (socket) {
    const int size = 8 << 20;
    setsockopt(socket->fd.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
  }
  return socket;
}

Status check_socket_path(const std::string& path) {
  if (Result<sockaddr_un> address = address_of(path); !address) {
    return address.error();
  }
  const Result<bool> found = find_own_socket(path);
  if (!found) {
    return found.error();
  }
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    return Error{errno, "make a socket in " + directory, ""};
  }
  return Ok{};
}

Status write_pid_file(const std::string& path, Pid pid) {
  const OpenedFile opened = open_own_file(path.c_str(), 0644);
  if (opened.fd < 0) {
    return open_error(path, opened, "-e");
  }
  const UniqueFd file(opened.fd);
  const std::string text = std::to_string(pid);
  if (ftruncate(file.get(), 0) != 0 || retry([&] {
                                         return ::pwrite(file.get(), text.data(), text.size(), 0);
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
    const int fd = number_of<int>(entry->d_name);
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

bool is_set_user_id() { return getuid() != geteuid() || getgid() != getegid(); }

}  // namespace einhorn::os
