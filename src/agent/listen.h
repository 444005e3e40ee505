// Addresses to listen on, and to send to: "127.0.0.1:9100", "[::1]:9100", ":9100", "unix:/path".
#pragma once

#include <string>

#include "base/result.h"
#include "os/unique_fd.h"

namespace einhorn::agent {

// A listening socket, nonblocking, CLOEXEC. Errors: in people's words, with the address.
[[nodiscard]] Result<os::UniqueFd> listen_on(const std::string& address);
// What it is bound to, with the port that was chosen.
[[nodiscard]] std::string address_of(int fd);
// A datagram socket that is connected to that address; "unix:/path" is a datagram socket too.
[[nodiscard]] Result<os::UniqueFd> datagrams_to(const std::string& address);

}  // namespace einhorn::agent
