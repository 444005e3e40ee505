// The connections that were accepted from shared sockets, as the kernel lists them (sock_diag).
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "intercept/rules.h"

namespace einhorn::intercept {

// The inodes of connected sockets whose local address is that of one of these, whoever has accepted
// them. None: the kernel does not say.
[[nodiscard]] std::optional<std::set<std::uint64_t>> connections_of(
    const std::vector<Shared>& shared);

// The inode of the other end of a connection to a socket of this machine; 0 nobody has accepted it
// yet. None: there is no such connection, or the kernel does not say.
[[nodiscard]] std::optional<std::uint64_t> other_end(int socket);

}  // namespace einhorn::intercept
