// What `-b` says, as a value: parsing only, no system call.
//
// The grammar, complete in docs/bind.md:
//
//   [udp:]HOST:PORT | [udp:]:PORT | [udp:]PORT | [udp:]*:PORT | [udp:][IPV6]:PORT
//   HOST:PORT+index
//   unix:/PATH | unix:@NAME
//   fd:NUMBER | fd:NAME
//
// followed by any number of `,OPTION` or `,OPTION=VALUE`. The prefixes are in lower case; options
// are in any case. What is accepted here is free of contradictions: an option that makes no sense
// for the kind of address is refused, so whoever opens a spec does not have to ask again (only for
// `fd:`, whose kind is not known before it is looked at).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace einhorn::os {

// One `-b ADDR[,OPT...]`.
struct BindSpec {
  enum class Family {
    kInet,       // host:port, [v6]:port, *:port, :port, port
    kUnix,       // unix:/path or unix:@abstract
    kInherited,  // fd:N or fd:NAME, handed in by systemd or the caller
  };
  enum class Protocol { kTcp, kUdp };  // kUdp: udp:ADDR; of a meaning for kInet only

  std::string text;  // as the user wrote it
  Family family = Family::kInet;
  Protocol protocol = Protocol::kTcp;
  // kInet: address or name, without brackets, "" for all addresses; kUnix: "/path" or "@name";
  // kInherited: the number or the name.
  std::string host;
  std::uint16_t port = 0;  // kInet; 0 lets the kernel choose
  // PORT+index: each worker has a socket of its own, at the port plus its index; kInet and TCP only
  bool per_worker = false;

  bool reuse_address = false;         // r, so_reuseaddr
  bool nonblock = false;              // n, o_nonblock
  bool reuse_port = false;            // reuseport
  bool v6_only = false;               // v6only; only with an IPv6 address as the host
  bool defer_accept = false;          // defer
  bool no_delay = false;              // nodelay
  std::optional<int> backlog;         // backlog=N, 1..65535
  std::optional<int> fast_open;       // fastopen=N, 1..65535
  std::string name;                   // name=NAME; for LISTEN_FDNAMES and {fd:NAME}
  std::optional<std::uint32_t> mode;  // mode=0660; a path only, at most 0777
  std::string user;                   // a path only; a name or a number
  std::string group;                  // a path only; a name or a number
  bool as_stdin = false;              // stdin: workers have it as descriptor 0 as well

  // Not of the text: for a program that calls bind and listen itself. The address is taken, and may
  // be taken in other forms (os/intercept.h), but an internet socket does not listen yet.
  bool for_interception = false;

  // The options in order, for `state`: keys in lower case, values as written, `rn` as "r", "n".
  std::vector<std::string> flags;
};

// Errors are one line, name the whole text, and say which part is wrong and what is allowed:
// "-b 80,zap: unknown option \"zap\"; allowed are ...".
[[nodiscard]] Result<BindSpec> parse_bind_spec(std::string_view text);

// The old form of a program's argument: `^(.*=|)srv:ADDR(,OPT)*$`.
struct SrvArgument {
  std::string prefix;  // what stands before "srv:", e.g. "--socket="
  std::string spec;    // what stands behind it, for parse_bind_spec
};
// None if it is not of that form: ADDR must end in `:` and decimal digits, or be such digits alone,
// or begin with "unix:/", "unix:@" or "fd:"; there must be no white space behind "srv:". Other
// arguments in which "srv:" happens to occur are the program's own business. The options are not
// looked at here, parse_bind_spec refuses bad ones.
[[nodiscard]] std::optional<SrvArgument> find_srv_argument(std::string_view argument);

}  // namespace einhorn::os
