// What the listeners*.cpp files share. Nobody else includes it, except their tests.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "os/listeners.h"

namespace einhorn::os::listeners {

// A socket address of any family.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] int family() const { return storage.ss_family; }
};

// 0 for families without one.
[[nodiscard]] std::uint16_t port_of(const Address& address);
void set_port(Address& address, std::uint16_t port);
// "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@name"; "udp:" before internet datagrams.
[[nodiscard]] std::string format_address(const Address& address, bool datagram);

// "-b TEXT: WHAT: the reason of `code`".
[[nodiscard]] Error bind_error(const BindSpec& spec, std::string_view what, int code,
                               std::string detail = {});

// `what` names the option in messages.
[[nodiscard]] Status set_socket_option(const BindSpec& spec, int fd, int level, int option,
                                       int value, std::string_view what);
// defer, fastopen, nodelay, as far as asked for.
[[nodiscard]] Status set_tcp_options(const BindSpec& spec, int fd);
// Fills in address and port from what the kernel says.
[[nodiscard]] Status read_bound_address(Listener& listener, bool datagram);

// A duplicate of the socket with that address that the service manager has kept (its name there
// begins with "einhorn-listen-"); -1: there is none.
[[nodiscard]] int take_stored(const InheritedSockets& stored, const Address& address,
                              const BindSpec& spec);

[[nodiscard]] Result<std::vector<Listener>> open_inet(const BindSpec& spec, int backlog,
                                                      const InheritedSockets& stored);
// One listener an address, in order, with one port for all of them (the spec's; if that is 0, the
// one the kernel chose for the first). Contract: at least one address.
[[nodiscard]] Result<std::vector<Listener>> open_addresses(const BindSpec& spec,
                                                           std::vector<Address> addresses,
                                                           int backlog,
                                                           const InheritedSockets& stored = {});
[[nodiscard]] Result<std::vector<Listener>> open_unix(const BindSpec& spec, int backlog,
                                                      const InheritedSockets& stored);
[[nodiscard]] Result<std::vector<Listener>> open_inherited(const BindSpec& spec, int backlog,
                                                           const InheritedSockets& inherited);

}  // namespace einhorn::os::listeners
