#include "client/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/limits.h"
#include "os/descriptors.h"
#include "os/linux/retry.h"

namespace einhorn::client {

namespace {

constexpr std::size_t kReadBytes = 64 * 1024;

struct Address {
  sockaddr_un name = {};
  socklen_t length = 0;
};

Result<Address> make_address(const std::string& path) {
  const std::string operation = "connect " + path;
  Address address;
  address.name.sun_family = AF_UNIX;
  if (path.empty()) {
    return Error{ENOENT, operation, "the path is empty"};
  }
  if (path.size() > sizeof(address.name.sun_path)) {
    return Error{ENAMETOOLONG, operation,
                 "the path is too long for a socket: " + std::to_string(path.size()) +
                     " bytes, at most " + std::to_string(sizeof(address.name.sun_path))};
  }
  std::memcpy(address.name.sun_path, path.data(), path.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  return address;
}

// connect(2) on a unix socket blocks while the backlog is full and can't be polled for; the send
// timeout is what bounds it.
void bound_connect(int fd, const Deadline& deadline) {
  const std::optional<Duration> left = deadline.remaining();
  if (!left.has_value()) {
    return;
  }
  // Zero would mean "for ever".
  const auto microseconds =
      std::max<std::int64_t>(1, std::chrono::ceil<std::chrono::microseconds>(*left).count());
  timeval timeout = {};
  timeout.tv_sec = static_cast<time_t>(microseconds / 1'000'000);
  timeout.tv_usec = static_cast<suseconds_t>(microseconds % 1'000'000);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

Error connect_error(int code, const std::string& path) {
  const std::string operation = "connect " + path;
  struct stat info = {};
  // The kernel answers "connection refused" for a file that is no socket at all.
  if (code == ECONNREFUSED && ::stat(path.c_str(), &info) == 0 && !S_ISSOCK(info.st_mode)) {
    return Error{ENOTSOCK, operation, "not a socket"};
  }
  if (code == EAGAIN || code == ETIMEDOUT) {
    return Error{ETIMEDOUT, operation, ""};
  }
  return Error{code, operation, ""};
}

Error closed_error() { return make_error("wait for a reply", "the master closed the connection"); }

}  // namespace

bool commands(const os::Peer& master) {
  const uid_t own = ::geteuid();
  return own == 0 || master.uid == own || master.uid == 0;
}

wire::Value to_document(const Request& request) {
  wire::Map document;
  if (request.id.has_value()) {
    wire::put(document, "id", *request.id);
  }
  wire::put(document, "command", request.command);
  if (request.args.has_value()) {
    wire::List args;
    for (const std::string& argument : *request.args) {
      args.emplace_back(argument);
    }
    wire::put(document, "args", std::move(args));
  }
  for (const wire::Member& member : request.extra) {
    document.push_back(member);
  }
  return document;
}

Result<Connection> Connection::open(const std::string& path, const Deadline& deadline) {
  Result<Address> address = make_address(path);
  if (!address) {
    return std::move(address).error();
  }
  os::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) {
    return Error{errno, "create a socket", ""};
  }
  bound_connect(fd.get(), deadline);
  const auto* name = reinterpret_cast<const sockaddr*>(&address->name);
  while (::connect(fd.get(), name, address->length) != 0) {
    if (errno != EINTR) {
      return connect_error(errno, path);
    }
    if (deadline.passed()) {
      return connect_error(ETIMEDOUT, path);
    }
  }
  if (const os::Peer peer = os::peer_of(fd.get()); !commands(peer)) {
    return Error{EPERM, "connect " + path,
                 "the master there is user " + std::to_string(peer.uid) + "'s"};
  }
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return Error{errno, "connect " + path, ""};
  }
  return Connection(std::move(fd));
}

Status Connection::wait_for(short events, const Deadline& deadline,
                            std::string_view operation) const {
  pollfd entry = {fd_.get(), events, 0};
  const int ready = os::retry([&] { return ::poll(&entry, 1, deadline.poll_milliseconds()); });
  if (ready > 0) {
    return Ok{};
  }
  return Error{ready == 0 ? ETIMEDOUT : errno, std::string(operation), ""};
}

Result<bool> Connection::wait(const Deadline& deadline) const {
  if (buffer_.find('\n', searched_) != std::string::npos) {
    return true;
  }
  const Status status = wait_for(POLLIN, deadline, "wait for a reply");
  if (!status && status.error().code != ETIMEDOUT) {
    return status.error();
  }
  return status.has_value();
}

Status Connection::send(const Request& request, const Deadline& deadline) {
  const std::string line = wire::encode_request(to_document(request));
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t sent =
        os::retry([&] { return ::send(fd_.get(), rest.data(), rest.size(), MSG_NOSIGNAL); });
    if (sent >= 0) {
      rest.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return Ok{};
    } else if (errno == EAGAIN) {
      if (Status status = wait_for(POLLOUT, deadline, "send a request"); !status) {
        return status;
      }
    } else {
      return Error{errno, "send a request", ""};
    }
  }
  return Ok{};
}

Result<std::string> Connection::receive_line(const Deadline& deadline) {
  std::array<char, kReadBytes> chunk;
  while (true) {
    const std::size_t end = buffer_.find('\n', searched_);
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      searched_ = 0;
      return line;
    }
    searched_ = buffer_.size();
    if (buffer_.size() > limits::kMaxPendingOutput) {
      return make_error(
          "wait for a reply",
          "it is longer than " + std::to_string(limits::kMaxPendingOutput >> 20U) + " MB");
    }
    const ssize_t got = os::retry([&] { return ::recv(fd_.get(), chunk.data(), chunk.size(), 0); });
    if (got > 0) {
      buffer_.append(chunk.data(), static_cast<std::size_t>(got));
    } else if (got == 0 || errno == ECONNRESET) {
      return closed_error();
    } else if (errno == EAGAIN) {
      if (Status status = wait_for(POLLIN, deadline, "wait for a reply"); !status) {
        return std::move(status).error();
      }
    } else {
      return Error{errno, "wait for a reply", ""};
    }
  }
}

Result<wire::Reply> Connection::receive(const Deadline& deadline) {
  while (true) {
    Result<std::string> line = receive_line(deadline);
    if (!line) {
      return std::move(line).error();
    }
    if (line->empty() || *line == "\r") {
      continue;
    }
    Result<wire::Reply> reply = wire::parse_reply(*line);
    if (!reply) {
      return make_error("the master's reply can't be understood", reply.error().message());
    }
    return reply;
  }
}

bool Connection::is_closed() const {
  if (!buffer_.empty()) {
    return false;
  }
  char byte = 0;
  const ssize_t got =
      os::retry([&] { return ::recv(fd_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT); });
  return got == 0 || (got < 0 && errno != EAGAIN);
}

}  // namespace einhorn::client
