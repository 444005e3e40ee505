// Waiting, sockets, files and time of the real kernel; processes are in processes.cpp and
// spawn.cpp.
#include "os/linux/linux_kernel.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/memfd.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/limits.h"
#include "os/linux/retry.h"
#include "os/listeners.h"
#include "os/own_file.h"
#include "os/state_files.h"

namespace einhorn::os {
namespace {

constexpr std::size_t kMaxMessageBytes = 64 * 1024;
constexpr std::size_t kMaxMessageDescriptors = 253;  // the kernel's SCM_MAX_FD
constexpr std::size_t kNoteBytes = 4096;

std::int64_t read_clock(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

Transfer from_count(ssize_t count) {
  if (count >= 0) {
    return {Transfer::Kind::kDone, static_cast<std::size_t>(count)};
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
    return {Transfer::Kind::kWouldBlock, 0};
  }
  return {Transfer::Kind::kClosed, 0};
}

bool is_disconnect(int error) {
  // What accept(2) may report of a connection that is already over; the next one may be fine.
  switch (error) {
    case ECONNABORTED:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM:
      return true;
    default:
      return false;
  }
}

}  // namespace

Result<std::unique_ptr<LinuxKernel>> LinuxKernel::create() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) {
    return Error{errno, "epoll_create1", ""};
  }
  std::unique_ptr<LinuxKernel> kernel(new LinuxKernel(std::move(epoll)));
  for (UniqueFd* place : {&kernel->places_[0], &kernel->places_[1], &kernel->nothing_}) {
    place->reset(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    kernel->soft_descriptors_ = limit.rlim_cur;
    kernel->hard_descriptors_ = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  return kernel;
}

Instant LinuxKernel::now() { return Instant{Duration{read_clock(CLOCK_MONOTONIC)}}; }

WallOffset LinuxKernel::wall_offset() {
  return WallOffset{read_clock(CLOCK_REALTIME) - read_clock(CLOCK_MONOTONIC)};
}

std::size_t LinuxKernel::wait(std::span<Ready> ready, std::optional<Instant> deadline) {
  std::array<epoll_event, limits::kMaxEventsPerTurn> events;
  const int most = static_cast<int>(std::min(ready.size(), events.size()));
  int count = 0;
  for (;;) {
    int timeout = -1;
    if (deadline) {
      // Rounded up: a millisecond late, but never a busy loop before the deadline.
      const std::int64_t left = (*deadline - now()).count();
      const std::int64_t milliseconds = left <= 0 ? 0 : (left + 999'999) / 1'000'000;
      timeout = static_cast<int>(std::min<std::int64_t>(milliseconds, 24 * 3600 * 1000));
    }
    count = epoll_wait(epoll_.get(), events.data(), most, timeout);
    if (count >= 0 || errno != EINTR) {
      break;
    }
  }
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    ready[static_cast<std::size_t>(i)] =
        Ready{event.data.u64, (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0,
              (event.events & (EPOLLOUT | EPOLLERR)) != 0};
  }
  return count > 0 ? static_cast<std::size_t>(count) : 0;
}

Status LinuxKernel::watch(int fd, std::uint64_t token, Interest interest) {
  epoll_event event{};
  event.data.u64 = token;
  event.events = (interest.read ? EPOLLIN : 0U) | (interest.write ? EPOLLOUT : 0U);
  // Most are new: every worker and every client is watched once.
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) {
    return Ok{};
  }
  if (errno != EEXIST || epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    return Error{errno, "epoll_ctl", ""};
  }
  return Ok{};
}

void LinuxKernel::unwatch(int fd) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

Result<Accepted> LinuxKernel::accept(int listener) {
  const int fd =
      retry([&] { return ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); });
  if (fd < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK || is_disconnect(errno)) {
      return Accepted{};
    }
    return Error{errno, "accept", ""};
  }
  Accepted accepted{fd, {}};
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
    accepted.peer = Peer{credentials.pid, credentials.uid, credentials.gid};
  }
  return accepted;
}

Transfer LinuxKernel::read(int fd, std::span<char> into) {
  const ssize_t count = retry([&] { return ::read(fd, into.data(), into.size()); });
  if (count == 0) {
    return {Transfer::Kind::kClosed, 0};
  }
  return from_count(count);
}

Transfer LinuxKernel::write(int fd, std::string_view bytes) {
  ssize_t count =
      retry([&] { return ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT); });
  if (count < 0 && errno == ENOTSOCK) {
    count = retry([&] { return ::write(fd, bytes.data(), bytes.size()); });
  }
  return from_count(count);
}

namespace {

Message take_message(int socket, int flags) {
  Message message;
  std::array<char, kMaxMessageBytes> buffer;  // not cleared: most messages are a few bytes
  iovec part{buffer.data(), buffer.size()};
  alignas(cmsghdr)
      std::array<char, CMSG_SPACE(sizeof(int) * kMaxMessageDescriptors) + CMSG_SPACE(sizeof(ucred))>
          control;
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const auto receive = [&] {
    return retry(
        [&] { return ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | flags); });
  };
  ssize_t count = receive();
  if (count < 0 && errno == ECONNRESET) {
    // The other end closed with something unread. The error comes before what it said, and only
    // once.
    count = receive();
  }
  if (count < 0) {
    message.kind = from_count(count).kind;
    return message;
  }
  for (cmsghdr* part_of = CMSG_FIRSTHDR(&header); part_of != nullptr;
       part_of = CMSG_NXTHDR(&header, part_of)) {
    if (part_of->cmsg_level != SOL_SOCKET) {
      continue;
    }
    if (part_of->cmsg_type == SCM_RIGHTS) {
      const std::size_t fds = (part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      const std::size_t old = message.fds.size();
      message.fds.resize(old + fds);
      std::memcpy(message.fds.data() + old, CMSG_DATA(part_of), fds * sizeof(int));
    } else if (part_of->cmsg_type == SCM_CREDENTIALS) {
      ucred credentials{};
      std::memcpy(&credentials, CMSG_DATA(part_of), sizeof(credentials));
      message.sender = Peer{credentials.pid, credentials.uid, credentials.gid};
    }
  }
  if (count == 0 && message.fds.empty()) {
    int type = 0;
    socklen_t size = sizeof(type);
    getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size);
    if (type != SOCK_DGRAM) {
      message.kind = Transfer::Kind::kClosed;
      return message;
    }
  }
  if ((header.msg_flags & MSG_TRUNC) == 0) {
    message.text.assign(buffer.data(), static_cast<std::size_t>(count));
  }
  return message;
}

}  // namespace

Message LinuxKernel::receive(int socket) { return take_message(socket, 0); }

Message LinuxKernel::peek(int socket) {
  Message message = take_message(socket, MSG_PEEK);
  for (const int fd : message.fds) {
    close_descriptor(fd);
  }
  message.fds.clear();
  return message;
}

Status LinuxKernel::ask_for_senders(int socket) {
  const int yes = 1;
  if (setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) != 0) {
    return Error{errno, "setsockopt SO_PASSCRED", ""};
  }
  return Ok{};
}

Transfer LinuxKernel::send(int socket, std::string_view text, std::span<const int> fds) {
  CHECK(fds.size() <= kMaxMessageDescriptors);
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxMessageDescriptors)> control{};
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
  return from_count(retry([&] { return ::sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL); }));
}

Result<std::pair<int, int>> LinuxKernel::socket_pair() {
  std::array<int, 2> pair{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) != 0) {
    return Error{errno, "socketpair", ""};
  }
  const int size = 1 << 20;
  for (const int fd : pair) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  }
  return std::pair(pair[0], pair[1]);
}

Result<std::vector<OpenedListener>> LinuxKernel::open_listeners(const BindSpec& spec, int backlog) {
  Result<std::vector<Listener>> listeners = os::open_listeners(spec, backlog, {});
  if (!listeners) {
    return listeners.error();
  }
  std::vector<OpenedListener> opened;
  for (Listener& listener : *listeners) {
    opened.push_back(
        {listener.fd.release(), listener.address, listener.port, listener.device, listener.inode});
  }
  return opened;
}

Result<std::pair<int, int>> LinuxKernel::pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return Error{errno, "pipe2", ""};
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  // Fewer turns for whoever reads much. Other users have a quota, which many pipes would exceed.
  if (geteuid() == 0) {
    constexpr int kRoom = 1 << 20;
    fcntl(ends[0], F_SETPIPE_SZ, kRoom);
  }
  return std::pair(ends[0], ends[1]);
}

void LinuxKernel::close(int fd) { close_descriptor(fd); }

Result<int> LinuxKernel::raise(int fd, int least) {
  const int raised = fcntl(fd, F_DUPFD_CLOEXEC, least);
  if (raised < 0) {
    return Error{errno, "fcntl F_DUPFD_CLOEXEC", ""};
  }
  close_descriptor(fd);
  return raised;
}

Result<std::optional<SocketMade>> LinuxKernel::remake_socket(const std::string& path,
                                                             bool listening, std::uint32_t mode,
                                                             const std::string& group) {
  struct stat status {};
  if (lstat(path.c_str(), &status) == 0) {
    return std::optional<SocketMade>();
  }
  Result<SocketFile> made =
      listening ? open_command_socket(path, mode, group) : open_notify_socket(path, mode, group);
  if (!made) {
    return made.error();
  }
  return std::optional(SocketMade{made->fd.release(), made->device, made->inode});
}

Transfer LinuxKernel::write_line(int fd, std::string_view line) {
  pollfd output{fd, POLLOUT, 0};
  // A pipe is writable when PIPE_BUF bytes fit, and so much is written as a whole or not at all.
  if (retry([&] { return ::poll(&output, 1, 0); }) != 1 || (output.revents & POLLOUT) == 0) {
    return {Transfer::Kind::kWouldBlock, 0};
  }
  return from_count(retry(
      [&] { return ::write(fd, line.data(), std::min<std::size_t>(line.size(), PIPE_BUF)); }));
}

Result<int> LinuxKernel::open_log(const std::string& path) {
  const OpenedFile file = open_log_file(path.c_str());
  if (file.fd < 0) {
    return open_error(path, file, "--log-file");
  }
  return file.fd;
}

Result<int> LinuxKernel::create_memory(const char* name) {
  const int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd < 0) {
    return Error{errno, std::string("memfd_create ") + name, ""};
  }
  fchmod(fd, S_IRUSR | S_IWUSR);  // born open to everybody who comes by its name in procfs
  return fd;
}

Status LinuxKernel::write_at(int fd, std::uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count =
        retry([&] { return ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (count <= 0) {
      return Error{count < 0 ? errno : EIO, "write to memory file", ""};
    }
    bytes.remove_prefix(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return Ok{};
}

Result<std::string> LinuxKernel::read_all(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return Error{errno, "fstat of memory file", ""};
  }
  if (static_cast<std::uint64_t>(status.st_size) > limits::kMaxSnapshotBytes) {
    return Error{EFBIG, "read memory file", ""};
  }
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = retry([&] {
      return ::pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    });
    if (count < 0) {
      return Error{errno, "read memory file", ""};
    }
    if (count == 0) {
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

Result<SpawnNote*> LinuxKernel::map_note(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return Error{errno, "fstat of memory file", ""};
  }
  if (static_cast<std::size_t>(status.st_size) < kNoteBytes && ftruncate(fd, kNoteBytes) != 0) {
    return Error{errno, "ftruncate of memory file", ""};
  }
  // Present from the start: the kernel's write of the pid must not have to fault a page in.
  void* page = mmap(nullptr, kNoteBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (page == MAP_FAILED) {
    return Error{errno, "mmap of memory file", ""};
  }
  return static_cast<SpawnNote*>(page);
}

void LinuxKernel::unmap_note(SpawnNote* note) { munmap(note, kNoteBytes); }

}  // namespace einhorn::os
