// Sockets that somebody else opened and handed in.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/numbers.h"
#include "os/linux/listeners_internal.h"

namespace einhorn::os::listeners {
namespace {

struct HandedIn {
  int fd = -1;
  std::string name;
};

std::string name_list(const InheritedSockets& inherited) {
  std::string list;
  for (const std::string& name : inherited.names) {
    if (!name.empty()) {
      list += (list.empty() ? "" : ", ") + name;
    }
  }
  return list;
}

// Which descriptors `fd:N` or `fd:NAME` means.
Result<std::vector<HandedIn>> find_descriptors(const BindSpec& spec,
                                               const InheritedSockets& inherited) {
  std::vector<HandedIn> found;
  const auto number = whole_number<int>(spec.host);
  for (std::size_t i = 0; i < inherited.fds.size(); ++i) {
    const std::string name = i < inherited.names.size() ? inherited.names[i] : std::string{};
    if (number ? inherited.fds[i] == *number : name == spec.host) {
      found.push_back({inherited.fds[i], name});
    }
  }
  if (found.empty() && number) {
    found.push_back({*number, ""});  // whoever started us may simply have left it open
  }
  if (found.empty()) {
    const std::string names = name_list(inherited);
    return make_error("-b " + spec.text,
                      inherited.fds.empty()
                          ? "no sockets were handed in (LISTEN_FDS, with our pid in LISTEN_PID)"
                          : "no socket of that name was handed in; LISTEN_FDNAMES has " +
                                (names.empty() ? "no names" : names));
  }
  return found;
}

Result<int> read_option(const BindSpec& spec, int fd, int option, std::string_view what) {
  int value = 0;
  socklen_t length = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, option, &value, &length) != 0) {
    return bind_error(spec, "ask for the " + std::string(what) + " of descriptor", errno);
  }
  return value;
}

// What kind of socket it is, as far as it matters here.
struct SocketKind {
  bool internet = false;
  bool datagram = false;
  bool tcp = false;
  bool listening = false;
};

Result<SocketKind> look_at(const BindSpec& spec, int fd) {
  const Result<int> domain = read_option(spec, fd, SO_DOMAIN, "family");
  const Result<int> type = read_option(spec, fd, SO_TYPE, "type");
  const Result<int> protocol = read_option(spec, fd, SO_PROTOCOL, "protocol");
  const Result<int> listening = read_option(spec, fd, SO_ACCEPTCONN, "state");
  for (const Result<int>* result : {&domain, &type, &protocol, &listening}) {
    if (!*result) {
      return result->error();
    }
  }
  SocketKind kind;
  kind.internet = *domain == AF_INET || *domain == AF_INET6;
  kind.datagram = *type == SOCK_DGRAM;
  kind.tcp = kind.internet && *type == SOCK_STREAM && *protocol == IPPROTO_TCP;
  kind.listening = *listening != 0;
  const bool known_type = *type == SOCK_STREAM || *type == SOCK_DGRAM || *type == SOCK_SEQPACKET;
  if ((!kind.internet && *domain != AF_UNIX) || !known_type) {
    return make_error("-b " + spec.text, "it is no TCP, UDP or unix socket");
  }
  return kind;
}

Status check_options(const BindSpec& spec, const SocketKind& kind) {
  if (!kind.tcp && (spec.defer_accept || spec.fast_open || spec.no_delay)) {
    return make_error("-b " + spec.text,
                      "defer, fastopen and nodelay are for TCP, and this is no TCP socket");
  }
  if (kind.datagram && spec.backlog) {
    return make_error("-b " + spec.text, "backlog makes no sense for a datagram socket");
  }
  return Ok{};
}

Status start_listening(const BindSpec& spec, const SocketKind& kind, int fd, int backlog) {
  if (kind.datagram || (kind.listening && !spec.backlog)) {
    return Ok{};
  }
  if (!kind.listening) {
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0) {
      return make_error("-b " + spec.text, "it is a connection, not a listening socket");
    }
  }
  if (listen(fd, backlog) != 0) {
    return bind_error(spec, "listen", errno);
  }
  return Ok{};
}

// The flag belongs to the socket, so it is said in both cases.
Status set_blocking(const BindSpec& spec, int fd) {
  const int flags = fcntl(fd, F_GETFL);
  const int wanted = spec.nonblock ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  if (flags < 0 || (wanted != flags && fcntl(fd, F_SETFL, wanted) != 0)) {
    return bind_error(spec, "option o_nonblock", errno);
  }
  return Ok{};
}

Result<Listener> take(const BindSpec& spec, const HandedIn& handed_in, int backlog) {
  const std::string shown = "descriptor " + std::to_string(handed_in.fd);
  struct stat status {};
  if (fstat(handed_in.fd, &status) != 0) {
    return bind_error(spec, shown, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return bind_error(spec, shown, ENOTSOCK);
  }
  Listener listener;
  listener.spec = spec;
  if (spec.name.empty()) {
    listener.spec.name = handed_in.name;
  }
  constexpr int kFirstOwn = 3;
  listener.fd.reset(fcntl(handed_in.fd, F_DUPFD_CLOEXEC, kFirstOwn));
  if (!listener.fd) {
    return bind_error(spec, "duplicate " + shown, errno);
  }
  const int fd = listener.fd.get();
  const Result<SocketKind> kind = look_at(spec, fd);
  if (!kind) {
    return kind.error();
  }
  if (kind->internet && kind->datagram) {
    listener.spec.protocol = BindSpec::Protocol::kUdp;
  }
  Status done = check_options(spec, *kind);
  done = done ? set_tcp_options(spec, fd) : done;
  done = done ? start_listening(spec, *kind, fd, backlog) : done;
  done = done ? set_blocking(spec, fd) : done;
  done = done ? read_bound_address(listener, kind->internet && kind->datagram) : done;
  if (!done) {
    return std::move(done).error();
  }
  return listener;
}

}  // namespace

Result<std::vector<Listener>> open_inherited(const BindSpec& spec, int backlog,
                                             const InheritedSockets& inherited) {
  const Result<std::vector<HandedIn>> found = find_descriptors(spec, inherited);
  if (!found) {
    return found.error();
  }
  std::vector<Listener> all;
  for (const HandedIn& handed_in : *found) {
    Result<Listener> one = take(spec, handed_in, backlog);
    if (!one) {
      return std::move(one).error();
    }
    all.push_back(std::move(*one));
  }
  for (const HandedIn& handed_in : *found) {
    fcntl(handed_in.fd, F_SETFD, FD_CLOEXEC);
  }
  return all;
}

}  // namespace einhorn::os::listeners
