#include "os/descriptors.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace einhorn::os {

Result<UniqueFd> own_descriptor(int fd, bool nonblocking) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return Error{errno, "descriptor " + std::to_string(fd), ""};
  }
  if (!S_ISSOCK(status.st_mode)) {
    return make_error("descriptor " + std::to_string(fd), "it is no socket");
  }
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  if (nonblocking) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  return UniqueFd(fd);
}

Peer peer_of(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return {};
  }
  return Peer{credentials.pid, credentials.uid, credentials.gid};
}

std::optional<std::uint16_t> bound_port(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return std::nullopt;
  }
  switch (address.ss_family) {
    case AF_INET:
      return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
    case AF_INET6:
      return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
    default:
      return std::nullopt;
  }
}

std::optional<std::pair<std::uint64_t, std::uint64_t>> socket_identity(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode) ||
      status.st_uid != geteuid()) {
    return std::nullopt;
  }
  return std::pair(std::uint64_t{status.st_dev}, std::uint64_t{status.st_ino});
}

}  // namespace einhorn::os
