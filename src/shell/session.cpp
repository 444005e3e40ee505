#include "shell/session.h"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <utility>

#include "base/check.h"
#include "shell/output.h"

namespace einhorn::shell {

namespace {

constexpr std::chrono::seconds kAsideTimeout{1};
constexpr std::chrono::milliseconds kQuiet{250};

std::string seconds_text(Duration duration) {
  char text[64];
  std::snprintf(text, sizeof text, "%g s", to_seconds(duration));
  return text;
}

}  // namespace

CommandEnd decide_end(const wire::Reply& last) {
  if (last.status.empty() || last.status == "ok") {
    return CommandEnd::kSucceeded;
  }
  return last.status == "could_not_start" ? CommandEnd::kCouldNotStart : CommandEnd::kFailed;
}

client::Deadline Session::deadline() const {
  return timeout_.has_value() ? client::Deadline::after(*timeout_) : client::Deadline::never();
}

Status Session::connect() {
  if (connection_.has_value() && !connection_->is_closed()) {
    return Ok{};
  }
  connection_.reset();
  Result<client::Connection> connection = client::Connection::open(socket_path_, deadline());
  if (!connection) {
    return std::move(connection).error();
  }
  connection_ = std::move(connection).value();
  return Ok{};
}

Error Session::explain(Error error, std::string_view command) const {
  const std::string name = escape_controls(command, Newlines::kEscaped);
  if (error.code == ETIMEDOUT && timeout_.has_value()) {
    return make_error(name, "no answer from the master within " + seconds_text(*timeout_));
  }
  error.operation = name + ": " + error.operation;
  return error;
}

Result<wire::Reply> Session::next_reply(const client::Deadline& give_up,
                                        const std::function<void()>& on_quiet) {
  while (on_quiet && !give_up.passed()) {
    const Result<bool> came =
        connection_->wait(client::Deadline::earlier(give_up, client::Deadline::after(kQuiet)));
    if (!came) {
      return came.error();
    }
    if (*came) {
      break;
    }
    on_quiet();
  }
  return connection_->receive(give_up);
}

Result<CommandEnd> Session::converse(const client::Request& request, const ReplySink& sink,
                                     const std::function<void()>& on_quiet) {
  CHECK(connection_.has_value());
  const client::Deadline give_up = deadline();
  Status status = connection_->send(request, give_up);
  while (status) {
    Result<wire::Reply> reply = next_reply(give_up, on_quiet);
    if (!reply) {
      status = std::move(reply).error();
      break;
    }
    if (status = sink(*reply); !status) {
      connection_.reset();
      return std::move(status).error();
    }
    if (!reply->wait) {
      return decide_end(*reply);
    }
  }
  connection_.reset();
  return explain(std::move(status).error(), request.command);
}

Result<CommandEnd> Session::run(const CommandLine& line, const ReplySink& sink,
                                const std::function<void()>& on_quiet) {
  client::Request request;
  request.id = ++last_id_;
  request.command = line.command;
  request.args = line.args;
  return converse(request, sink, on_quiet);
}

Result<std::string> Session::greet(const std::string& user) {
  client::Request request;
  request.command = "ehlo";
  wire::put(request.extra, "user", user);
  std::string welcome;
  const ReplySink sink = [&welcome](const wire::Reply& reply) -> Status {
    welcome += reply.message;
    return Ok{};
  };
  Result<CommandEnd> end = converse(request, sink, {});
  if (!end) {
    return std::move(end).error();
  }
  return welcome;
}

Result<std::string> Session::ask_aside(const client::Request& request) const {
  const client::Deadline give_up =
      client::Deadline::earlier(deadline(), client::Deadline::after(kAsideTimeout));
  Result<client::Connection> connection = client::Connection::open(socket_path_, give_up);
  if (!connection) {
    return std::move(connection).error();
  }
  if (Status status = connection->send(request, give_up); !status) {
    return std::move(status).error();
  }
  Result<wire::Reply> reply = connection->receive(give_up);
  if (!reply) {
    return std::move(reply).error();
  }
  return std::move(reply->message);
}

Result<std::string> Session::fetch_help() const {
  client::Request request;
  request.command = "help";
  return ask_aside(request);
}

Result<std::string> Session::fetch_state() const {
  client::Request request;
  request.command = "state";
  request.args = {"json"};
  return ask_aside(request);
}

}  // namespace einhorn::shell
