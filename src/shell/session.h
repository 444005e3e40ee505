// Commands and what the master answers: ids, the connection, and whether a command succeeded.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/instant.h"
#include "base/result.h"
#include "client/connection.h"
#include "shell/words.h"
#include "wire/message.h"

namespace einhorn::shell {

// How a command ended; the values are einhornsh's exit statuses.
enum class CommandEnd : std::uint8_t {
  kSucceeded = 0,
  kFailed = 1,
  kCouldNotStart = 2,  // an upgrade
};

// What the last reply to a command says about how it ended. A master that doesn't say is believed.
[[nodiscard]] CommandEnd decide_end(const wire::Reply& last);

// A conversation with one master. The ids of its requests are 1, 2, 3...
class Session {
 public:
  // Gets every reply as it comes; an error ends the command.
  using ReplySink = std::function<Status(const wire::Reply&)>;

  Session(std::string socket_path, std::optional<Duration> timeout)
      : socket_path_(std::move(socket_path)), timeout_(timeout) {}

  [[nodiscard]] const std::string& socket_path() const { return socket_path_; }

  // Connects, unless there is a connection already that the master hasn't closed (a master that
  // was replaced closes it). Errors: those of client::Connection::open.
  [[nodiscard]] Status connect();

  // Sends the command and hands out its replies until the last one; `on_quiet` is called a few
  // times a second while none comes. Contract: connected. Errors: the connection's, in people's
  // words; the sink's. Then the connection is closed.
  [[nodiscard]] Result<CommandEnd> run(const CommandLine& line, const ReplySink& sink,
                                       const std::function<void()>& on_quiet = {});

  // Says hello for a user and returns the master's welcome. Contract and errors as `run`.
  [[nodiscard]] Result<std::string> greet(const std::string& user);

  // The master's reply to `help` and to `state json`, each by a connection of its own and within a
  // second.
  [[nodiscard]] Result<std::string> fetch_help() const;
  [[nodiscard]] Result<std::string> fetch_state() const;

 private:
  [[nodiscard]] client::Deadline deadline() const;
  Result<CommandEnd> converse(const client::Request& request, const ReplySink& sink,
                              const std::function<void()>& on_quiet);
  Result<wire::Reply> next_reply(const client::Deadline& give_up,
                                 const std::function<void()>& on_quiet);
  [[nodiscard]] Result<std::string> ask_aside(const client::Request& request) const;
  [[nodiscard]] Error explain(Error error, std::string_view command) const;

  std::string socket_path_;
  std::optional<Duration> timeout_;
  std::optional<client::Connection> connection_;
  std::int64_t last_id_ = 0;
};

}  // namespace einhorn::shell
