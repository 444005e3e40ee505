#include "os/unique_fd.h"

#include <unistd.h>

#include <cerrno>

namespace einhorn::os {

void close_descriptor(int fd) noexcept {
  const int saved = errno;
  // Whatever close() says, the descriptor is gone; a second try could close somebody else's.
  ::close(fd);
  errno = saved;
}

}  // namespace einhorn::os
