#include "shell/session.h"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <utility>

#include "base/check.h"
#include "shell/output.h"

namespace einhorn::shell {

namespace {

constexpr std::chrono::seconds kHelpTimeout{1};

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

Result<CommandEnd> Session::converse(const client::Request& request, const ReplySink& sink) {
  CHECK(connection_.has_value());
  const client::Deadline give_up = deadline();
  Status status = connection_->send(request, give_up);
  while (status) {
    Result<wire::Reply> reply = connection_->receive(give_up);
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

Result<CommandEnd> Session::run(const CommandLine& line, const ReplySink& sink) {
  client::Request request;
  request.id = ++last_id_;
  request.command = line.command;
  request.args = line.args;
  return converse(request, sink);
}

Result<std::string> Session::greet(const std::string& user) {
  client::Request request;
  request.command = "ehlo";
  wire::put(request.extra, "user", user);
  std::string welcome;
  Result<CommandEnd> end = converse(request, [&welcome](const wire::Reply& reply) -> Status {
    welcome += reply.message;
    return Ok{};
  });
  if (!end) {
    return std::move(end).error();
  }
  return welcome;
}

Result<std::string> Session::fetch_help() const {
  const client::Deadline give_up = client::Deadline::after(kHelpTimeout);
  Result<client::Connection> connection = client::Connection::open(socket_path_, give_up);
  if (!connection) {
    return std::move(connection).error();
  }
  client::Request request;
  request.command = "help";
  if (Status status = connection->send(request, give_up); !status) {
    return std::move(status).error();
  }
  Result<wire::Reply> reply = connection->receive(give_up);
  if (!reply) {
    return std::move(reply).error();
  }
  return std::move(reply->message);
}

}  // namespace einhorn::shell
