// What a program asks: one call of bind or listen, with its socket, as seen from outside.
//
// Everything here comes from a program that may be hostile: it is read once, checked for its
// length, and nothing is read again. Looking may block for as long as the program makes its memory
// or its socket block: only ever on a thread that serves this program alone.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "intercept/address.h"
#include "os/unique_fd.h"

struct seccomp_notif;

namespace einhorn::intercept {

// A socket's device and inode.
using Identity = std::pair<std::uint64_t, std::uint64_t>;
[[nodiscard]] Identity identity_of(int socket);

struct Ask {
  os::UniqueFd socket;  // a duplicate of the program's
  pid_t pid = 0;        // of the thread that asks
  int fd = -1;          // its number in the program
  bool close_on_exec = false;
  SocketAddress address;  // of a bind; paths made absolute
  // What the socket is.
  int domain = 0;
  int type = 0;
  bool v6_only = false;
  bool nonblocking = false;
  Identity identity;
  std::string in_epoll;  // "descriptor 5" if an epoll set of the program holds it already
};

// Looks at the program that this notification is from. None: it can't be looked at (`why` says so,
// if there is something to say), or is gone.
[[nodiscard]] std::optional<Ask> look(int notify, const seccomp_notif& notification,
                                      std::string* why);

// Whether that descriptor of that process is closed when it executes another program.
[[nodiscard]] bool closes_on_exec(pid_t pid, int fd);

// The parts that only need the socket.
void describe_socket(Ask& ask);
// The address of a unix socket as that program sees it, in the file system that we see.
void make_absolute(pid_t pid, SocketAddress& address);

// Whether an epoll set of the program holds that descriptor; "" if not.
[[nodiscard]] std::string find_in_epoll(pid_t pid, int fd);

// Lets tasks that wait for an answer that will never come ask again: their supervisor died between
// the question and the answer. `bind` and `listen` never wait otherwise.
void wake_stuck();

}  // namespace einhorn::intercept
