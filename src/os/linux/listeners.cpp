#include "os/listeners.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <optional>

#include "base/limits.h"
#include "base/numbers.h"
#include "os/linux/listeners_internal.h"

namespace einhorn::os {
namespace listeners {

namespace {

template <typename SockAddr>
SockAddr& as(Address& address) {
  return reinterpret_cast<SockAddr&>(address.storage);
}
template <typename SockAddr>
const SockAddr& as(const Address& address) {
  return reinterpret_cast<const SockAddr&>(address.storage);
}

std::string format_unix(const Address& address) {
  const auto& unix_address = as<sockaddr_un>(address);
  constexpr auto kOffset = offsetof(sockaddr_un, sun_path);
  if (address.length <= kOffset) {
    return "unix:";  // a socket without a name
  }
  const std::string_view path(unix_address.sun_path, address.length - kOffset);
  if (path.front() == '\0') {
    return "unix:@" + std::string(path.substr(1));
  }
  return "unix:" + std::string(path.substr(0, path.find('\0')));
}

}  // namespace

std::uint16_t port_of(const Address& address) {
  if (address.family() == AF_INET) {
    return ntohs(as<sockaddr_in>(address).sin_port);
  }
  if (address.family() == AF_INET6) {
    return ntohs(as<sockaddr_in6>(address).sin6_port);
  }
  return 0;
}

void set_port(Address& address, std::uint16_t port) {
  if (address.family() == AF_INET) {
    as<sockaddr_in>(address).sin_port = htons(port);
  } else if (address.family() == AF_INET6) {
    as<sockaddr_in6>(address).sin6_port = htons(port);
  }
}

std::string format_address(const Address& address, bool datagram) {
  if (address.family() == AF_UNIX) {
    return format_unix(address);
  }
  std::array<char, NI_MAXHOST> host{};
  const int error = getnameinfo(address.get(), address.length, host.data(), host.size(), nullptr, 0,
                                NI_NUMERICHOST);
  std::string text = datagram ? "udp:" : "";
  text += address.family() == AF_INET6 ? "[" : "";
  text += error == 0 ? host.data() : "?";
  text += address.family() == AF_INET6 ? "]:" : ":";
  return text + std::to_string(port_of(address));
}

Error bind_error(const BindSpec& spec, std::string_view what, int code, std::string detail) {
  return Error{code, "-b " + spec.text + ": " + std::string(what), std::move(detail)};
}

Status set_socket_option(const BindSpec& spec, int fd, int level, int option, int value,
                         std::string_view what) {
  if (setsockopt(fd, level, option, &value, sizeof value) != 0) {
    return bind_error(spec, "option " + std::string(what), errno);
  }
  return Ok{};
}

Status set_tcp_options(const BindSpec& spec, int fd) {
  Status status = Ok{};
  if (spec.defer_accept) {
    status = set_socket_option(spec, fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1, "defer");
  }
  if (status && spec.fast_open) {
    status = set_socket_option(spec, fd, IPPROTO_TCP, TCP_FASTOPEN, *spec.fast_open, "fastopen");
  }
  if (status && spec.no_delay) {
    // Accepted sockets inherit it.
    status = set_socket_option(spec, fd, IPPROTO_TCP, TCP_NODELAY, 1, "nodelay");
  }
  return status;
}

Status read_bound_address(Listener& listener, bool datagram) {
  Address address;
  address.length = sizeof address.storage;
  auto* storage = reinterpret_cast<sockaddr*>(&address.storage);
  if (getsockname(listener.fd.get(), storage, &address.length) != 0) {
    return bind_error(listener.spec, "getsockname", errno);
  }
  listener.address = format_address(address, datagram);
  listener.port = port_of(address);
  return Ok{};
}

}  // namespace listeners

namespace {}  // namespace

Result<InheritedSockets> read_inherited_sockets(const char* (*lookup)(const char*),
                                                std::int32_t own_pid) {
  constexpr int kFirstDescriptor = 3;
  InheritedSockets inherited;
  const char* pid = lookup("LISTEN_PID");
  const char* count_text = lookup("LISTEN_FDS");
  if (pid == nullptr || count_text == nullptr || whole_number<std::int64_t>(pid) != own_pid) {
    return inherited;
  }
  const auto count = whole_number<std::int64_t>(count_text);
  const std::string operation = "LISTEN_FDS=" + std::string(count_text);
  if (!count || *count < 0) {
    return make_error(operation, "must be a number of descriptors");
  }
  if (*count > static_cast<std::int64_t>(limits::kMaxListeners)) {
    return make_error(operation, "more than " + std::to_string(limits::kMaxListeners));
  }
  const char* names_text = lookup("LISTEN_FDNAMES");
  std::string_view names = names_text != nullptr ? names_text : "";
  for (int i = 0; i < *count; ++i) {
    inherited.fds.push_back(kFirstDescriptor + i);
    const std::size_t colon = names.find(':');
    inherited.names.emplace_back(names.substr(0, colon));
    names = colon == std::string_view::npos ? std::string_view{} : names.substr(colon + 1);
  }
  return inherited;
}

Result<std::vector<Listener>> open_listeners(const BindSpec& spec, int default_backlog,
                                             const InheritedSockets& inherited) {
  const int backlog = spec.backlog.value_or(default_backlog);
  switch (spec.family) {
    case BindSpec::Family::kInet:
      return listeners::open_inet(spec, backlog, inherited);
    case BindSpec::Family::kUnix:
      return listeners::open_unix(spec, backlog, inherited);
    case BindSpec::Family::kInherited:
      return listeners::open_inherited(spec, backlog, inherited);
  }
  return listeners::bind_error(spec, "open", EINVAL);
}

void remove_socket_file(const Listener& listener) {
  if (listener.inode == 0 || listener.spec.family != BindSpec::Family::kUnix) {
    return;
  }
  const char* path = listener.spec.host.c_str();
  struct stat status {};
  if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) && status.st_dev == listener.device &&
      status.st_ino == listener.inode) {
    unlink(path);
  }
}

}  // namespace einhorn::os
