// TCP and UDP.
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "os/linux/listeners_internal.h"

namespace einhorn::os::listeners {
namespace {

// How often a whole group is opened again when the port that the kernel chose for its first address
// is taken on another one.
constexpr int kPortAttempts = 16;

bool is_udp(const BindSpec& spec) { return spec.protocol == BindSpec::Protocol::kUdp; }

Address any_address(int family) {
  Address address;
  address.storage.ss_family = static_cast<sa_family_t>(family);
  address.length = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  return address;  // all zero: in6addr_any, INADDR_ANY
}

bool same_address(const Address& a, const Address& b) {
  return a.length == b.length && std::memcmp(&a.storage, &b.storage, a.length) == 0;
}

// False on a kernel without IPv6 and where it is switched off; then even the loopback address
// can't be bound.
bool has_ipv6() {
  const UniqueFd fd(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  Address loopback = any_address(AF_INET6);
  reinterpret_cast<sockaddr_in6&>(loopback.storage).sin6_addr = in6addr_loopback;
  return fd && bind(fd.get(), loopback.get(), loopback.length) == 0;
}

// Every address of the spec's host, each once, in the resolver's order.
Result<std::vector<Address>> resolve(const BindSpec& spec) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = is_udp(spec) ? SOCK_DGRAM : SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* first = nullptr;
  const int error = getaddrinfo(spec.host.c_str(), nullptr, &hints, &first);
  if (error != 0) {
    const bool by_errno = error == EAI_SYSTEM;
    return bind_error(spec, "look up " + spec.host, by_errno ? errno : 0,
                      by_errno ? "" : gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(first, &freeaddrinfo);
  std::vector<Address> addresses;
  for (const addrinfo* entry = first; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) {
      continue;
    }
    Address address;
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    address.length = entry->ai_addrlen;
    const auto same = [&address](const Address& other) { return same_address(address, other); };
    if (std::none_of(addresses.begin(), addresses.end(), same)) {
      addresses.push_back(address);
    }
  }
  if (addresses.empty()) {
    return bind_error(spec, "look up " + spec.host, 0, "it has no IPv4 or IPv6 address");
  }
  return addresses;
}

// A hosts file often gives "localhost" an IPv6 address where the machine has none.
void drop_unusable(std::vector<Address>& addresses) {
  const auto is_v6 = [](const Address& address) { return address.family() == AF_INET6; };
  const bool mixed = std::any_of(addresses.begin(), addresses.end(), is_v6) &&
                     !std::all_of(addresses.begin(), addresses.end(), is_v6);
  if (mixed && !has_ipv6()) {
    std::erase_if(addresses, is_v6);
  }
}

Status set_options_before_bind(const BindSpec& spec, const Address& address, int fd, bool v6_only) {
  Status status = Ok{};
  if (spec.reuse_address || spec.for_interception) {
    status = set_socket_option(spec, fd, SOL_SOCKET, SO_REUSEADDR, 1, "so_reuseaddr");
  }
  if (status && spec.reuse_port) {
    status = set_socket_option(spec, fd, SOL_SOCKET, SO_REUSEPORT, 1, "reuseport");
  }
  if (status && address.family() == AF_INET6) {
    // Said in both cases: the default is the administrator's (net.ipv6.bindv6only).
    status = set_socket_option(spec, fd, IPPROTO_IPV6, IPV6_V6ONLY, v6_only ? 1 : 0, "v6only");
  }
  if (status && !is_udp(spec)) {
    status = set_tcp_options(spec, fd);
  }
  return status;
}

Result<Listener> open_one(const BindSpec& spec, const Address& address, bool v6_only, int backlog,
                          const InheritedSockets& stored) {
  const bool udp = is_udp(spec);
  const std::string shown = format_address(address, udp);
  const int type =
      (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | (spec.nonblock ? SOCK_NONBLOCK : 0);
  Listener listener;
  listener.spec = spec;
  listener.fd.reset(take_stored(stored, address, spec));
  const bool is_bound = static_cast<bool>(listener.fd);
  if (!is_bound) {
    listener.fd.reset(socket(address.family(), type, 0));
  }
  if (!listener.fd) {
    return bind_error(spec, "socket for " + shown, errno);
  }
  const int fd = listener.fd.get();
  if (Status status = is_bound ? set_tcp_options(spec, fd)
                               : set_options_before_bind(spec, address, fd, v6_only);
      !status) {
    return status.error();
  }
  if (!is_bound && bind(fd, address.get(), address.length) != 0) {
    return bind_error(spec, "bind " + shown, errno);
  }
  if (!udp && !spec.for_interception && listen(fd, backlog) != 0) {
    return bind_error(spec, "listen on " + shown, errno);
  }
  if (Status status = read_bound_address(listener, udp); !status) {
    return status.error();
  }
  return listener;
}

Result<std::vector<Listener>> open_group(const BindSpec& spec, std::vector<Address>& addresses,
                                         int backlog, const InheritedSockets& stored) {
  std::vector<Listener> group;
  std::uint16_t port = spec.port;
  for (Address& address : addresses) {
    set_port(address, port);
    // Of several addresses, the one for all of IPv6 must leave IPv4 to its neighbours.
    Result<Listener> one =
        open_one(spec, address, spec.v6_only || addresses.size() > 1, backlog, stored);
    if (!one) {
      return std::move(one).error();
    }
    port = one->port;
    group.push_back(std::move(*one));
  }
  return group;
}

// One socket for both families; for IPv4 alone where there is no IPv6.
Result<std::vector<Listener>> open_everywhere(const BindSpec& spec, int backlog,
                                              const InheritedSockets& stored) {
  Result<std::vector<Listener>> both =
      open_addresses(spec, {any_address(AF_INET6)}, backlog, stored);
  if (both || (both.error().code != EAFNOSUPPORT && both.error().code != EADDRNOTAVAIL)) {
    return both;
  }
  return open_addresses(spec, {any_address(AF_INET)}, backlog, stored);
}

}  // namespace

Result<std::vector<Listener>> open_addresses(const BindSpec& spec, std::vector<Address> addresses,
                                             int backlog, const InheritedSockets& stored) {
  CHECK(!addresses.empty());
  const bool may_retry = spec.port == 0 && addresses.size() > 1;
  for (int attempt = 1;; ++attempt) {
    Result<std::vector<Listener>> group = open_group(spec, addresses, backlog, stored);
    if (group || !may_retry || group.error().code != EADDRINUSE || attempt == kPortAttempts) {
      return group;
    }
  }
}

Result<std::vector<Listener>> open_inet(const BindSpec& spec, int backlog,
                                        const InheritedSockets& stored) {
  if (spec.host.empty()) {
    return open_everywhere(spec, backlog, stored);
  }
  Result<std::vector<Address>> addresses = resolve(spec);
  if (!addresses) {
    return std::move(addresses).error();
  }
  drop_unusable(*addresses);
  return open_addresses(spec, std::move(*addresses), backlog, stored);
}

}  // namespace einhorn::os::listeners
