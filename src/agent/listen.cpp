#include "agent/listen.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

namespace einhorn::agent {
namespace {

struct Parts {
  std::string host;
  std::string port;
};

Result<Parts> split(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    return make_error("address " + address, "it must be HOST:PORT, [IPV6]:PORT or unix:PATH");
  }
  Parts parts{address.substr(0, colon), address.substr(colon + 1)};
  for (const char digit : parts.port) {
    if (digit < '0' || digit > '9' || parts.port.size() > 5 || std::stoi(parts.port) > 65535) {
      return make_error("address " + address, "the port must be a number from 0 to 65535");
    }
  }
  if (parts.host.starts_with('[') && parts.host.ends_with(']')) {
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  } else if (parts.host.find(':') != std::string::npos) {
    return make_error("address " + address, "an IPv6 address stands in brackets: [::1]:9100");
  }
  return parts;
}

Result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return make_error(
        "address unix:" + path,
        "the path must have from 1 to " + std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<Addresses> resolve(const std::string& address, int type, int flags) {
  Result<Parts> parts = split(address);
  if (!parts) {
    return parts.error();
  }
  addrinfo hints{};
  hints.ai_socktype = type;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(parts->host.empty() ? nullptr : parts->host.c_str(),
                                 parts->port.c_str(), &hints, &found);
  if (failed != 0) {
    return make_error("address " + address, gai_strerror(failed));
  }
  return Addresses(found, &freeaddrinfo);
}

// A socket of an agent that is gone is in the way; one that somebody listens on is not ours.
Result<os::UniqueFd> listen_unix(const std::string& path) {
  Result<sockaddr_un> address = unix_address(path);
  if (!address) {
    return address.error();
  }
  const auto* name = reinterpret_cast<const sockaddr*>(&*address);
  os::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return Error{errno, "create a socket", ""};
  }
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) {
    const os::UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(probe.get(), name, sizeof *address) != 0 && errno == ECONNREFUSED) {
      ::unlink(path.c_str());
    }
  }
  if (::bind(fd.get(), name, sizeof *address) != 0 || ::listen(fd.get(), 128) != 0) {
    return Error{errno, "listen on unix:" + path, ""};
  }
  return fd;
}

}  // namespace

Result<os::UniqueFd> listen_on(const std::string& address) {
  if (address.starts_with("unix:")) {
    return listen_unix(address.substr(5));
  }
  Result<Addresses> found = resolve(address, SOCK_STREAM, AI_PASSIVE);
  if (!found) {
    return found.error();
  }
  const addrinfo& first = **found;
  os::UniqueFd fd(::socket(first.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return Error{errno, "listen on " + address, ""};
  }
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), first.ai_addr, first.ai_addrlen) != 0 || ::listen(fd.get(), 128) != 0) {
    return Error{errno, "listen on " + address, ""};
  }
  return fd;
}

std::string address_of(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    return "";
  }
  if (storage.ss_family == AF_UNIX) {
    return std::string("unix:") + reinterpret_cast<const sockaddr_un*>(&storage)->sun_path;
  }
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&storage), size, host.data(), host.size(),
                  port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "";
  }
  const std::string name = host.data();
  return (storage.ss_family == AF_INET6 ? "[" + name + "]" : name) + ":" + port.data();
}

Result<os::UniqueFd> datagrams_to(const std::string& address) {
  if (address.starts_with("unix:")) {
    Result<sockaddr_un> name = unix_address(address.substr(5));
    if (!name) {
      return name.error();
    }
    os::UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*name), sizeof *name) != 0) {
      return Error{errno, "send to " + address, ""};
    }
    return fd;
  }
  Result<Addresses> found = resolve(address, SOCK_DGRAM, 0);
  if (!found) {
    return found.error();
  }
  const addrinfo& first = **found;
  os::UniqueFd fd(::socket(first.ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd || ::connect(fd.get(), first.ai_addr, first.ai_addrlen) != 0) {
    return Error{errno, "send to " + address, ""};
  }
  return fd;
}

}  // namespace einhorn::agent
