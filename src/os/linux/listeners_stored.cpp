// Sockets that the service manager has kept for us while nobody ran.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <string>

#include "os/linux/listeners_internal.h"

namespace einhorn::os::listeners {
namespace {

constexpr std::string_view kStoredName = "einhorn-listen-";

}  // namespace
}  // namespace einhorn::os::listeners

namespace einhorn::os {

bool is_stored_name(std::string_view name) { return name.starts_with(listeners::kStoredName); }

bool same_socket(int one, int other) {
  struct stat first {};
  struct stat second {};
  return fstat(one, &first) == 0 && fstat(other, &second) == 0 && S_ISSOCK(first.st_mode) &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace einhorn::os

namespace einhorn::os::listeners {

int take_stored(const InheritedSockets& stored, const Address& address, const BindSpec& spec) {
  const bool udp =
      spec.family == BindSpec::Family::kInet && spec.protocol == BindSpec::Protocol::kUdp;
  for (std::size_t i = 0; i < stored.fds.size(); ++i) {
    if (i >= stored.names.size() || !is_stored_name(stored.names[i])) {
      continue;
    }
    const int fd = stored.fds[i];
    int type = 0;
    socklen_t type_length = sizeof type;
    Address bound;
    bound.length = sizeof bound.storage;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_length) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&bound.storage), &bound.length) != 0) {
      continue;
    }
    // By what people read: a unix socket's length may or may not count its last zero.
    if (bound.family() != address.family() || type != (udp ? SOCK_DGRAM : SOCK_STREAM) ||
        format_address(bound, udp) != format_address(address, udp)) {
      continue;
    }
    constexpr int kFirstOwn = 3;
    const int own = fcntl(fd, F_DUPFD_CLOEXEC, kFirstOwn);
    const int flags = fcntl(own, F_GETFL);
    if (own >= 0 && flags >= 0) {
      fcntl(own, F_SETFL, spec.nonblock ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
      return own;
    }
  }
  return -1;
}

}  // namespace einhorn::os::listeners
