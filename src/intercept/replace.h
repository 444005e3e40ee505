// Replaces a socket in another process by one on which nothing ever comes (ptrace).
//
// Its threads are stopped, one of them makes a few system calls for us and goes on where it was;
// calls that were waiting on the old socket begin anew, with the new one. x86-64 only.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "os/unique_fd.h"

namespace einhorn::intercept {

struct ToReplace {
  int fd = -1;  // in the process
  int domain = 0;
  int type = 0;
  bool nonblocking = false;
  bool close_on_exec = false;
};

struct Replaced {
  std::string failed;              // why not; "" it has been done
  bool try_again = false;          // it was in the middle of something
  std::vector<os::UniqueFd> idle;  // duplicates of listening sockets that took the place
};

// Must be called from one thread only, for any one process. `own_filters`: how many seccomp filters
// the program has from us; one with others may not survive our calls, and is left alone.
[[nodiscard]] Replaced replace_sockets(pid_t process, const std::vector<ToReplace>& sockets,
                                       long own_filters);

}  // namespace einhorn::intercept
