// Opening what `-b` says.
//
// Owns the sockets' birth: CLOEXEC from the first instant, the unix socket file's permissions from
// the first instant, everything or nothing for an address that gives several sockets. Whoever gets
// the Listeners owns the descriptors. A socket's *file* is removed only on request
// (remove_socket_file), since the socket may live on in another process.
//
// Not for several threads: the mode of a unix socket's file is set by the process's umask while it
// is bound.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "os/bind_spec.h"
#include "os/unique_fd.h"

namespace einhorn::os {

// A bound (and, except for datagrams, listening) socket.
struct Listener {
  UniqueFd fd;             // CLOEXEC; O_NONBLOCK only if asked for (`n`)
  BindSpec spec;           // for `fd:` with the name it was handed in under, unless one was given
  std::string address;     // what it is really bound to: "127.0.0.1:39627", "[::]:80",
                           // "unix:/path", "unix:@name", "udp:127.0.0.1:53"
  std::uint16_t port = 0;  // the port really bound; 0 for unix
  // Identity of a unix socket's file, so that only our own is removed; 0 where there is none,
  // and for sockets that were handed in (whose files are somebody else's).
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

// What the caller's service manager handed in (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES).
struct InheritedSockets {
  std::vector<int> fds;            // 3, 4, ... ; empty if LISTEN_PID does not name us
  std::vector<std::string> names;  // as many; "" where not named
};
// `lookup` gives an environment variable's value or null. Errors: a malformed LISTEN_FDS, or more
// than limits::kMaxListeners; never when LISTEN_PID is missing or names somebody else.
[[nodiscard]] Result<InheritedSockets> read_inherited_sockets(const char* (*lookup)(const char*),
                                                              std::int32_t own_pid);

// Whether a handed-in socket is one of ours that the service manager has kept (FDSTORE=1).
[[nodiscard]] bool is_stored_name(std::string_view name);
[[nodiscard]] bool same_socket(int one, int other);

// Opens one spec. A name with several addresses gives several listeners, all with one port, also
// where it is chosen by the kernel; of a name's addresses the IPv6 ones are left out on a machine
// that has no IPv6. "All addresses" ("8080", ":8080", "*:8080") is ONE dual-stack socket on `::`
// where IPv6 exists, otherwise one on 0.0.0.0.
//
// On an error nothing stays open, and no socket file of ours stays behind; the message names the
// address as the user wrote it, the address tried, and why:
// "-b localhost:80: bind 127.0.0.1:80: Permission denied".
//
// A unix path where a *living* socket listens is an error; a dead socket file there is replaced; a
// file that is no socket, a symbolic link too, is an error.
//
// A socket with the address wanted that the service manager has kept for us (handed in under a name
// that begins with "einhorn-listen-") is taken instead of a new one: what waits in it is not lost.
//
// `fd:` duplicates what was handed in (all of them, if several have the name) to a descriptor of
// our own and makes the original CLOEXEC, so that no child gets it twice. Flags of the socket, as
// O_NONBLOCK, are shared with whoever handed it in.
[[nodiscard]] Result<std::vector<Listener>> open_listeners(const BindSpec& spec,
                                                           int default_backlog,
                                                           const InheritedSockets& inherited);

// Removes a unix socket's file if it is still the one that this listener made. To be called while
// the socket is still open somewhere: that keeps the inode's number from being used again.
void remove_socket_file(const Listener& listener);

}  // namespace einhorn::os
