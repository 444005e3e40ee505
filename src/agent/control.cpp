#include "agent/control.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "client/connection.h"
#include "os/unique_fd.h"
#include "wire/json.h"
#include "wire/json_line.h"

namespace einhorn::agent {
namespace {

constexpr Duration kPatience = std::chrono::seconds{5};
constexpr std::size_t kLeastToken = 16;

// What the page's buttons say.
constexpr std::array<std::string_view, 8> kCommands = {
    "upgrade", "upgrade_fleet", "rollback", "set_workers", "inc", "dec", "signal", "stop_worker"};

// Takes as long whatever the difference is.
bool same(std::string_view left, std::string_view right) {
  unsigned difference = left.size() == right.size() ? 0 : 1;
  for (std::size_t i = 0; i < left.size(); ++i) {
    const char other = right.empty() ? '\0' : right[i % right.size()];
    difference |= static_cast<unsigned>(static_cast<unsigned char>(left[i])) ^
                  static_cast<unsigned char>(other);
  }
  return difference == 0;
}

HttpResponse said(int status, std::string_view message) {
  wire::JsonLine line;
  line.field("ok", status == 200).field("message", message);
  return {status, "application/json", line.take()};
}

// "[::1]:9100" -> "::1"
std::string host_without_port(const std::string& host) {
  if (host.starts_with('[')) {
    return host.substr(1, host.find(']') == std::string::npos ? 0 : host.find(']') - 1);
  }
  return host.substr(0, host.rfind(':'));
}

bool is_address(const std::string& host) {
  std::array<unsigned char, 16> bytes{};
  return inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 ||
         inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1;
}

}  // namespace

Result<std::string> read_own_line(const std::string& path) {
  const os::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) {
    return Error{errno, "read " + path, ""};
  }
  if (!S_ISREG(status.st_mode) || (status.st_mode & 022U) != 0 ||
      (status.st_uid != ::geteuid() && status.st_uid != 0)) {
    return make_error("read " + path, "it is not a file of this user's");
  }
  std::array<char, 4096> bytes{};
  const ssize_t got = ::read(fd.get(), bytes.data(), bytes.size());
  std::string line(bytes.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  line.resize(std::min(line.find_first_of("\r\n"), line.size()));
  return line;
}

Result<std::string> read_token(const std::string& path) {
  const os::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) {
    return Error{errno, "--token-file " + path, ""};
  }
  if (!S_ISREG(status.st_mode) || (status.st_mode & 077U) != 0 ||
      (status.st_uid != ::geteuid() && status.st_uid != 0)) {
    return make_error("--token-file " + path,
                      "it must be a file of this user's (or root's) that nobody else may read: "
                      "chmod 600");
  }
  std::array<char, 1024> bytes{};
  const ssize_t got = ::read(fd.get(), bytes.data(), bytes.size());
  std::string token(bytes.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  token.resize(std::min(token.find_first_of("\r\n"), token.size()));
  if (token.size() < kLeastToken) {
    return make_error("--token-file " + path, "its first line must have at least " +
                                                  std::to_string(kLeastToken) + " characters");
  }
  return token;
}

bool Control::knows_host(const HttpRequest& request) const {
  const std::string host = host_without_port(request.header("host"));
  return host == "localhost" || is_address(host) ||
         std::find(hosts_.begin(), hosts_.end(), host) != hosts_.end();
}

std::optional<HttpResponse> Control::refuse(const HttpRequest& request) const {
  if (!allowed()) {
    return said(403, "this agent was started without --allow-control");
  }
  if (request.method != "POST") {
    HttpResponse response = said(405, "control is for POST");
    response.headers["Allow"] = "POST";
    return response;
  }
  const std::string origin = request.header("origin");
  const std::string host = request.header("host");
  const std::string site = request.header("sec-fetch-site");
  if ((!origin.empty() && origin != "http://" + host && origin != "https://" + host) ||
      (!site.empty() && site != "same-origin" && site != "none")) {
    return said(403, "this request comes from another site");
  }
  std::string type = request.header("content-type");
  type.resize(std::min(type.find(';'), type.size()));
  if (type != "application/json") {
    return said(415, "the body must be application/json");
  }
  const std::string given = request.header("authorization");
  constexpr std::string_view kBearer = "Bearer ";
  if (!given.starts_with(kBearer) || !same(given.substr(kBearer.size()), token_)) {
    HttpResponse response = said(401, "the token is missing or wrong");
    response.headers["WWW-Authenticate"] = "Bearer";
    return response;
  }
  return std::nullopt;
}

HttpResponse Control::handle(const HttpRequest& request, const Fleet& fleet) const {
  if (auto refused = refuse(request)) {
    return *refused;
  }
  const Result<wire::Value> body = wire::parse_json(request.body);
  if (!body || body->as_map() == nullptr) {
    return said(400,
                "the body must be a JSON object: {\"pool\":...,\"command\":...,\"args\":[...]}");
  }
  const std::string command = text_of(*body, "command");
  if (std::find(kCommands.begin(), kCommands.end(), command) == kCommands.end()) {
    return said(400, "no such command: " + command);
  }
  const PoolModel* pool = fleet.find(text_of(*body, "pool"));
  if (pool == nullptr) {
    return said(404, "no such pool: " + text_of(*body, "pool"));
  }
  client::Request asked;
  asked.id = 1;
  asked.command = command;
  asked.args.emplace();
  const wire::Value* args = body->find("args");
  if (args != nullptr && args->as_list() != nullptr) {
    for (const wire::Value& word : *args->as_list()) {
      if (word.as_string() == nullptr) {
        return said(400, "args must be a list of strings");
      }
      asked.args->push_back(*word.as_string());
    }
  }
  const client::Deadline deadline = client::Deadline::after(kPatience);
  Result<client::Connection> connection = client::Connection::open(pool->path(), deadline);
  Status sent = connection ? connection->send(asked, deadline) : Status(connection.error());
  Result<wire::Reply> reply =
      sent ? connection->receive(deadline) : Result<wire::Reply>(sent.error());
  if (!reply) {
    return said(503, reply.error().message());
  }
  const bool well = reply->status.empty() || reply->status == "ok";
  return said(well ? 200 : 400, reply->message);
}

}  // namespace einhorn::agent
