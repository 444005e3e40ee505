#include "agent/agent.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "agent/api.h"
#include "agent/control.h"
#include "agent/history.h"
#include "agent/http_server.h"
#include "agent/metrics.h"
#include "agent/options.h"
#include "agent/page.h"

namespace einhorn::agent {
namespace {

void say(const std::string& text) {
  const std::string line = "einhorn-agent: " + text + "\n";
  static_cast<void>(::write(STDERR_FILENO, line.data(), line.size()) >= 0);
}

// Small files beside the command sockets that say where the history is, for `einhornsh`. They go
// with us.
class Notes {
 public:
  Notes() = default;
  Notes(const Notes&) = delete;
  Notes& operator=(const Notes&) = delete;
  ~Notes() {
    for (const std::string& path : paths_) {
      ::unlink(path.c_str());
    }
  }
  void write(const std::string& path, const std::string& where) {
    if (std::find(paths_.begin(), paths_.end(), path) != paths_.end()) {
      return;
    }
    ::unlink(path.c_str());
    const os::UniqueFd fd(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    std::array<char, PATH_MAX> whole{};
    const bool file = !is_postgresql(where) && ::realpath(where.c_str(), whole.data()) != nullptr;
    const std::string line = (file ? std::string(whole.data()) : where) + "\n";
    if (fd && ::write(fd.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size())) {
      paths_.push_back(path);
    }
  }

 private:
  std::vector<std::string> paths_;
};

std::string host_name() {
  std::array<char, 256> host{};
  static_cast<void>(::gethostname(host.data(), host.size() - 1));
  return host.data();
}

class Agent {
 public:
  Agent(Loop& loop, AgentOptions options, std::string token)
      : loop_(loop),
        options_(std::move(options)),
        control_(std::move(token), options_.hosts),
        fleet_(loop, options_.wanted, options_.sample_interval,
               {[this](const Incoming& incoming) { on_line(incoming); },
                [this](const PoolModel& pool) { on_connection(pool); },
                [](const std::string& text) { say(text); }}) {}

  Status start();

 private:
  void on_line(const Incoming& incoming);
  void on_connection(const PoolModel& pool);
  void on_signal(int signal);
  HttpResponse answer(const HttpRequest& request);
  HttpResponse answer_get(const HttpRequest& request);
  HttpResponse answer_history(const HttpRequest& request);
  Status open_history();
  HttpServer::Stream choose_stream(const HttpRequest& request) const;

  Loop& loop_;
  AgentOptions options_;
  std::string host_ = host_name();
  Control control_;
  Fleet fleet_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<AgentCheck> agent_check_;
  std::unique_ptr<Statsd> statsd_;
  std::unique_ptr<History> history_;
  Notes notes_;
  bool draining_ = false;
};

Status Agent::start() {
  Result<os::UniqueFd> listener = listen_on(options_.listen);
  if (!listener) {
    return listener.error();
  }
  http_ = std::make_unique<HttpServer>(
      loop_, std::move(*listener), [this](const HttpRequest& request) { return answer(request); },
      [this](const HttpRequest& request) { return choose_stream(request); });
  if (!options_.agent_check.empty()) {
    Result<os::UniqueFd> check = listen_on(options_.agent_check);
    if (!check) {
      return check.error();
    }
    agent_check_ = std::make_unique<AgentCheck>(loop_, std::move(*check), [this] {
      return agent_check_answer(fleet_, options_.agent_check_pool, options_.health, draining_,
                                loop_.now());
    });
    say("HAProxy's agent-check on " + address_of(agent_check_->listener()));
  }
  if (!options_.statsd.address.empty()) {
    statsd_ = std::make_unique<Statsd>(loop_, options_.statsd, fleet_,
                                       [](const std::string& text) { say(text); });
  }
  if (Status caught =
          loop_.catch_signals({SIGTERM, SIGINT, SIGHUP}, [this](int signal) { on_signal(signal); });
      !caught) {
    return caught;
  }
  if (Status opened = open_history(); !opened) {
    return opened;
  }
  const std::string address = address_of(http_->listener());
  say("listening on " + (address.starts_with("unix:") ? address : "http://" + address + "/"));
  fleet_.start();
  return Ok{};
}

// The thread that writes inherits the blocked signals: they come to the loop.
Status Agent::open_history() {
  if (options_.history.empty()) {
    return Ok{};
  }
  history_ = std::make_unique<History>(
      HistoryOptions{options_.history, host_, options_.keep_age, options_.keep_bytes},
      [](const std::string& text) { say(text); });
  if (Status opened = history_->open(); !opened) {
    return opened;
  }
  fleet_.set_introduction([this](Feed& feed) {
    if (const auto last = history_->last_of(feed.model().name())) {
      feed.begin_after(last->stream, last->number);
    }
  });
  return Ok{};
}

HttpResponse Agent::answer_history(const HttpRequest& request) {
  if (!history_) {
    return {404, "text/plain; charset=utf-8",
            "this agent keeps no history; start it with --history\n"};
  }
  const auto number = [&request](const std::string& name, double otherwise) {
    const std::string text = request.parameter(name);
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    return text.empty() || *end != '\0' || !(value >= 0 && value < 1e12) ? otherwise : value;
  };
  const Result<std::string> rows = history_->ask(
      {request.parameter("kind", "events"), request.parameter("pool"), request.parameter("host"),
       number("from", 0), number("to", 1e11), static_cast<std::int64_t>(number("epoch", 0)),
       number("step", 0), static_cast<std::size_t>(std::min(number("limit", 1000), 100000.0))});
  if (!rows) {
    return {400, "text/plain; charset=utf-8", rows.error().message() + "\n"};
  }
  return {200, "application/json", *rows};
}

void Agent::on_signal(int signal) {
  if (signal == SIGHUP) {
    return;
  }
  if (options_.drain == Duration{0} || draining_) {
    loop_.stop();
    return;
  }
  draining_ = true;
  say("draining for " + std::to_string(static_cast<int>(to_seconds(options_.drain))) +
      " s before leaving");
  loop_.after(options_.drain, [this] { loop_.stop(); });
}

void Agent::on_line(const Incoming& incoming) {
  if (statsd_) {
    statsd_->on_line(incoming);
  }
  if (history_) {
    history_->on_line(incoming);
  }
  if (http_->has_streams()) {
    if (incoming.name == "snapshot") {
      http_->send_event(incoming.pool.name(), "reload", connection_json(incoming.pool));
    } else if (incoming.name != "resumed") {
      http_->send_event(incoming.pool.name(), "line", event_json(incoming.pool, incoming.line));
    }
  }
}

void Agent::on_connection(const PoolModel& pool) {
  if (history_ && pool.connected()) {
    notes_.write(history_note(pool.path()), options_.history);
  }
  say(pool.name() +
      (pool.connected() ? ": connected to " + pool.path() : ": not connected: " + pool.error()));
  if (http_) {
    http_->send_event(pool.name(), "connection", connection_json(pool));
  }
}

HttpServer::Stream Agent::choose_stream(const HttpRequest& request) const {
  if (request.path != "/api/events" || request.method != "GET" || !control_.knows_host(request)) {
    return {};
  }
  return {true, request.parameter("pool"), "event: hello\ndata: {}\n\n"};
}

HttpResponse Agent::answer(const HttpRequest& request) {
  if (request.path == "/healthcheck" || request.path.starts_with("/healthcheck/")) {
    const std::string pool = request.path.size() > 13 ? request.path.substr(13) : "";
    const Health health =
        health_of(fleet_, request.parameter("pool", pool), options_.health, draining_, loop_.now());
    return {health.well ? 200 : 503, "text/plain; charset=utf-8", health.text};
  }
  // A page of somebody else's whose name was pointed at our address reads nothing.
  if (!control_.knows_host(request) && !options_.listen.starts_with("unix:")) {
    return {421, "text/plain; charset=utf-8",
            "unknown Host; name it with --host if it is this agent's\n"};
  }
  if (request.path == "/api/control") {
    return control_.handle(request, fleet_);
  }
  if (request.method != "GET" && request.method != "HEAD") {
    HttpResponse response{405, "text/plain; charset=utf-8", "only GET and HEAD\n"};
    response.headers["Allow"] = "GET, HEAD";
    return response;
  }
  return answer_get(request);
}

HttpResponse Agent::answer_get(const HttpRequest& request) {
  if (request.path == "/metrics") {
    const bool open =
        request.header("accept").find("application/openmetrics-text") != std::string::npos;
    return {200,
            open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                 : "text/plain; version=0.0.4; charset=utf-8",
            metrics_text(fleet_, open)};
  }
  if (request.path == "/api/pools") {
    const std::string pool = request.parameter("pool");
    if (!pool.empty() && fleet_.find(pool) == nullptr) {
      return {404, "text/plain; charset=utf-8", "no such pool: " + pool + "\n"};
    }
    return {200, "application/json",
            pools_json(fleet_, pool, {host_, control_.allowed(), !options_.history.empty()})};
  }
  if (request.path == "/api/history") {
    return answer_history(request);
  }
  const std::string name = request.path == "/" ? "index.html" : request.path.substr(1);
  for (const PageFile& file : page_files()) {
    if (file.name == name) {
      HttpResponse response{200, std::string(file.type), std::string(file.bytes)};
      response.headers["Content-Security-Policy"] =
          "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
          "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
          "require-trusted-types-for 'script'; trusted-types 'none'";
      return response;
    }
  }
  return {404, "text/plain; charset=utf-8",
          "not here: /, /metrics, /healthcheck, /api/pools, /api/events\n"};
}

// Started by a master (--agent): LEAVE=1 makes room for the next one, and the end of the line says
// that neither master nor guard is there any more. While there is no master we stay.
void leave_with(int line, Loop& loop) {
  ::fcntl(line, F_SETFD, FD_CLOEXEC);
  loop.watch(line, true, false, [line, &loop](Loop::Ready) {
    std::array<char, 256> text{};
    const ssize_t got = ::recv(line, text.data(), text.size(), MSG_DONTWAIT);
    const bool nothing = got < 0 && (errno == EAGAIN || errno == EINTR);
    if (!nothing &&
        (got <= 0 || std::string_view(text.data(), static_cast<std::size_t>(got)) == "LEAVE=1")) {
      loop.stop();
    }
  });
}

int fail(const Error& error) {
  say(error.message());
  return 1;
}

}  // namespace

int run_agent(const Invocation& invocation) {
  const Result<AgentOptions> options = parse_options(invocation.arguments, invocation.environment);
  if (!options) {
    return fail(options.error());
  }
  if (options->mode == Mode::kUsage || options->mode == Mode::kVersion) {
    const std::string text =
        options->mode == Mode::kUsage ? usage_text() : "einhorn-agent " EINHORN_VERSION "\n";
    std::fputs(text.c_str(), stdout);
    return std::fflush(stdout) == 0 ? 0 : 1;
  }
  if (options->mode == Mode::kSql || options->mode == Mode::kHistory) {
    const Result<std::string> where = find_history(*options, invocation.environment);
    if (!where) {
      return fail(where.error());
    }
    return options->mode == Mode::kSql ? run_sql(*where, options->words)
                                       : run_history(*where, options->words);
  }
  std::string token;
  if (options->allow_control) {
    Result<std::string> read = read_token(options->token_file);
    if (!read) {
      return fail(read.error());
    }
    token = *read;
  }
  Result<std::unique_ptr<Loop>> loop = Loop::create();
  if (!loop) {
    return fail(loop.error());
  }
  if (options->companion >= 0) {
    leave_with(options->companion, **loop);
  }
  Agent agent(**loop, *options, token);
  if (Status started = agent.start(); !started) {
    return fail(started.error());
  }
  (*loop)->run();
  return 0;
}

}  // namespace einhorn::agent
