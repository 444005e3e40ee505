// What makes it possible to answer a program's bind() from outside.
//
// A filter (seccomp user notification) is put on a worker in the last steps before its exec: from
// then on its bind(), listen() and io_uring_setup() are told to whoever holds the filter's notify
// descriptor, and wait for the answer. All other calls go on as always.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace einhorn::os {

// Whether programs started from here can be watched in this way.
struct Interception {
  bool possible = false;
  // It takes no_new_privs: set-user-id programs that a worker starts do not change the user.
  bool no_new_privs = false;
  std::string refused;  // if not: which step was refused and why
};
// Tries it on a child of its own; for the start of a pool only (it forks).
[[nodiscard]] Interception probe_interception();

// Whether the program's file gives whoever starts it another user, group or capabilities, which
// no_new_privs would take away. Errors (no such file) are no reason.
[[nodiscard]] bool raises_privileges(const std::string& path);

// The directory of our own program, for what is installed with it; "" if nobody can say.
[[nodiscard]] std::string own_program_directory();

// Gives the file of a unix socket a second name, from which it can come back when a program removes
// it: the name is returned. Errors: somebody else's file is there.
[[nodiscard]] Result<std::string> keep_socket_file(const std::string& path);

// One `--intercept FROM=TO`: what a program calls FROM gets the socket TO.
struct InterceptRule {
  std::string from_host;        // "" any address; "/path" or "@name" for a unix socket
  std::uint16_t from_port = 0;  // 0 for a unix socket
  std::string to_name;          // the name=NAME of a -b; "" by port
  std::uint16_t to_port = 0;
};
// FROM := PORT | HOST:PORT | unix:/PATH | unix:@NAME; TO := PORT | NAME, where HOST is an IPv4
// address or [an IPv6 one]. Errors leave Error::operation empty.
[[nodiscard]] Result<InterceptRule> parse_intercept_rule(std::string_view text);

}  // namespace einhorn::os
