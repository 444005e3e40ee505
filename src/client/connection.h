// One connection to a master's command socket.
//
// It carries requests and replies and knows nothing about what they mean. Requests are written as
// escaped YAML, so a Ruby master reads them too; replies are understood in either language. All
// waiting is done with poll against a deadline. A reply that is longer than
// `limits::kMaxPendingOutput` is an error.
//
// After a failed send or receive the connection is of no further use: what was asked may or may not
// have been done, and a later reply could not be told from an earlier one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "client/deadline.h"
#include "os/kernel.h"
#include "os/unique_fd.h"
#include "wire/message.h"
#include "wire/value.h"

namespace einhorn::client {

// What is asked of a master.
struct Request {
  std::optional<std::int64_t> id;  // none: the old style, one reply at most
  std::string command;
  std::optional<std::vector<std::string>> args;
  wire::Map extra = {};  // further members, sent behind the others
};

[[nodiscard]] wire::Value to_document(const Request& request);

// Whether that master would obey this process, and is to be believed: for root every one is, for
// others their own user's and root's. Anybody may have put a socket where one is looked for.
[[nodiscard]] bool commands(const os::Peer& master);

class Connection {
 public:
  // Connects to the unix socket at `path`; the descriptor is CLOEXEC. Waits while the master's
  // backlog is full. Errors carry errno as their code (ENOENT, ECONNREFUSED, EACCES, ETIMEDOUT...)
  // and, where errno says too little, the reason in people's words as their detail: a path that
  // doesn't fit into an address, a file that is no socket, a master that is not to be spoken to
  // (EPERM).
  [[nodiscard]] static Result<Connection> open(const std::string& path, const Deadline& deadline);

  // Sends one request as a whole. A master that has hung up is not an error here but in
  // `receive`, which first hands out what the master still said. Errors: ETIMEDOUT, the socket's.
  [[nodiscard]] Status send(const Request& request, const Deadline& deadline);

  // Whether there is something to receive, waiting for it until the deadline; the master's hanging
  // up counts as something. Unlike the others it can be asked again after the deadline. Errors:
  // poll's.
  [[nodiscard]] Result<bool> wait(const Deadline& deadline) const;

  // The next reply. Errors: ETIMEDOUT; the master closed the connection; a reply that is too long
  // or that can't be understood.
  [[nodiscard]] Result<wire::Reply> receive(const Deadline& deadline);

  // Whether the master has closed its end and nothing it said is left to read.
  [[nodiscard]] bool is_closed() const;

 private:
  explicit Connection(os::UniqueFd fd) : fd_(std::move(fd)) {}

  Status wait_for(short events, const Deadline& deadline, std::string_view operation) const;
  Result<std::string> receive_line(const Deadline& deadline);

  os::UniqueFd fd_;
  std::string buffer_;        // received, not yet handed out
  std::size_t searched_ = 0;  // so many bytes of it are known to hold no newline
};

}  // namespace einhorn::client
