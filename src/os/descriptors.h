// Descriptors that came from another program.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/result.h"
#include "os/kernel.h"
#include "os/unique_fd.h"

namespace einhorn::os {

// Takes a socket over that was inherited: CLOEXEC from now on, and O_NONBLOCK if asked for.
// Errors: it is not open, or no socket.
[[nodiscard]] Result<UniqueFd> own_descriptor(int fd, bool nonblocking);

// Who is at the other end of a unix socket; zeroes if nobody can say.
[[nodiscard]] Peer peer_of(int socket);

// The port that a socket is bound to; none if it has none.
[[nodiscard]] std::optional<std::uint16_t> bound_port(int socket);

// Device and inode of a socket file of our own; none if there is none.
[[nodiscard]] std::optional<std::pair<std::uint64_t, std::uint64_t>> socket_identity(
    const std::string& path);

}  // namespace einhorn::os
