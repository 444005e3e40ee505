#include "master/report.h"

#include <utility>

#include "master/capture.h"
#include "wire/json.h"
#include "wire/ruby_state.h"
#include "wire/yaml.h"

namespace einhorn::master {
namespace {

using wire::Map;
using wire::Symbol;
using wire::Value;

class RubyReport {
 public:
  explicit RubyReport(const ReportInput& input)
      : input_(input), config_(input.pool.config()), ledger_(input.pool.ledger()) {}

  [[nodiscard]] Value document() const {
    wire::RubyState state;
    add_children(state);
    add_config(state);
    add_sockets(state);
    add_program(state);
    add_progress(state);
    add_settings(state);
    add_own(state);
    Value document = wire::encode_ruby_state(state);
    restore_reals(document);
    return document;
  }

 private:
  [[nodiscard]] std::optional<WallTime> wall(std::optional<Instant> at) const {
    return at ? std::optional(to_wall(*at, input_.settings.wall_offset)) : std::nullopt;
  }

  static std::optional<std::string> unless_empty(const std::string& text) {
    return text.empty() ? std::nullopt : std::optional(text);
  }

  static std::optional<std::vector<std::string>> unless_empty(
      const std::vector<std::string>& texts) {
    return texts.empty() ? std::nullopt : std::optional(texts);
  }

  // A worker whose pid is not known yet has no key to be shown under.
  void add_children(wire::RubyState& state) const {
    const std::vector<const pool::Worker*> workers = input_.pool.workers();
    state.children.reserve(workers.size());
    for (const pool::Worker* worker : workers) {
      wire::RubyChild child;
      child.pid = input_.pid_of(worker->id);
      if (child.pid == 0) {
        continue;
      }
      child.version = static_cast<std::int64_t>(worker->version.value);
      child.acked = worker->acked();
      for (const int number : worker->signaled.numbers()) {
        child.signaled.push_back(signal_name(number));
      }
      child.last_signaled_at = wall(worker->last_signaled_at);
      child.index = worker->id.slot.value;
      child.spinup_time = wall(worker->spawned_at);
      child.pinged_at = wall(worker->pinged_at);
      if (child.pinged_at) {
        child.pinged_request_id = ping_request_id(*worker);
      }
      state.children.push_back(std::move(child));
    }
  }

  void add_config(wire::RubyState& state) const {
    state.config.number = config_.number;
    state.config.backlog = input_.settings.backlog;
    if (config_.seconds) {
      state.config.seconds = to_seconds(*config_.seconds);
    }
    state.config.max_unacked = input_.settings.max_unacked_given;
    state.config.max_upgrade_additional = config_.max_upgrade_additional;
    if (input_.settings.gc_before_fork) {
      state.config.gc_before_fork = true;
    }
    state.ack_mode.timeout.reset();
    switch (config_.ack_mode) {
      case pool::AckMode::kTimer:
        state.ack_mode = {"timer", to_seconds(config_.ack_delay)};
        break;
      case pool::AckMode::kManual:
        state.ack_mode.type = "manual";
        break;
      case pool::AckMode::kNotify:
        state.ack_mode.type = "notify";
        break;
      case pool::AckMode::kListen:
        state.ack_mode.type = "listen";
        break;
    }
    if (config_.signal_timeout) {
      state.signal_timeout = to_seconds(*config_.signal_timeout);
    }
  }

  // Only what -b asked for; a name with several addresses is one bind with several descriptors.
  void add_sockets(wire::RubyState& state) const {
    std::optional<std::uint32_t> last_bind;
    for (const auto& [index, listener] : input_.listeners) {
      if (listener.from_argument) {
        continue;
      }
      if (last_bind != listener.bind_index) {
        state.bind.push_back({listener.host, listener.port_given, listener.flags});
        last_bind = listener.bind_index;
      }
      state.bind_fds.push_back(std::int64_t{input_.settings.first_descriptor} + index);
      state.bound_ports.push_back(listener.port);
    }
  }

  void add_program(wire::RubyState& state) const {
    state.orig_cmd = input_.settings.original_command;
    state.cmd = state.orig_cmd;
    const auto program = input_.programs.find(ledger_.version);
    if (program != input_.programs.end() && !program->second.arguments.empty()) {
      state.cmd = program->second.arguments;
      state.cmd->front() = program->second.path;
    }
    for (const ZygoteLine& zygote : input_.zygotes) {
      state.preloaded = state.preloaded || (zygote.version == ledger_.version && zygote.loaded);
    }
    state.path = unless_empty(input_.settings.preload);
    state.script_name = unless_empty(input_.settings.script);
  }

  void add_progress(wire::RubyState& state) const {
    state.version = static_cast<std::int64_t>(ledger_.version.value);
    state.respawn = ledger_.respawn;
    state.upgrading = ledger_.upgrade.has_value();
    state.smooth_upgrade = ledger_.upgrade && ledger_.upgrade->smooth;
    state.generation = static_cast<std::int64_t>(input_.settings.generation);
    state.last_spinup = wall(ledger_.last_spinup);
    state.consecutive_deaths_before_ack = ledger_.deaths_before_ack;
    state.last_upgraded = wall(ledger_.last_upgraded);
  }

  void add_settings(wire::RubyState& state) const {
    const wire::Settings& settings = input_.settings;
    state.cmd_name = unless_empty(settings.name);
    state.verbosity = settings.verbosity;
    state.kill_children_on_exit = settings.kill_children_on_exit;
    state.command_socket_as_fd = settings.command_socket_as_fd;
    state.socket_path = unless_empty(settings.socket_path_given);
    state.pidfile = unless_empty(settings.pidfile_given);
    state.lockfile = unless_empty(settings.lockfile_given);
    state.nice = {settings.nice_master, settings.nice_worker, settings.renice_command};
    state.reexec_commandline = unless_empty(settings.reexec_commandline);
    state.drop_environment_variables = settings.drop_environment;
  }

  void add_own(wire::RubyState& state) const {
    put(state.extra, Symbol{"guard"}, input_.guard != 0 ? Value(input_.guard) : Value());
    put(state.extra, Symbol{"master"}, input_.master);
    put(state.extra, Symbol{"failed"}, ledger_.failed);
    put(state.extra, Symbol{"failure"}, ledger_.failure.empty() ? Value() : Value(ledger_.failure));
    if (input_.shares_of) {
      put(state.extra, Symbol{"memory"}, memory());
    }
    if (input_.capture != nullptr) {
      put(state.extra, Symbol{"capture"}, capture_report(input_));
    }
    add_health(state);
  }

  // Of each worker, by its pid: bytes that it has for itself, and that it shares.
  [[nodiscard]] Map memory() const {
    Map all;
    for (const pool::Worker* worker : input_.pool.workers()) {
      const Pid pid = input_.pid_of(worker->id);
      if (const auto shares = pid != 0 ? input_.shares_of(pid) : std::nullopt) {
        Map one;
        put(one, Symbol{"private"}, shares->private_bytes);
        put(one, Symbol{"shared"}, shares->shared_bytes);
        put(all, pid, std::move(one));
      }
    }
    return all;
  }

  // Only where there is something to say.
  void add_health(wire::RubyState& state) const {
    wire::List hung;
    for (const Casualty& casualty : input_.casualties) {
      Map entry;
      put(entry, Symbol{"pid"}, casualty.pid);
      put(entry, Symbol{"index"}, casualty.worker.slot.value);
      put(entry, Symbol{"ailment"}, std::string(pool::name(casualty.ailment)));
      put(entry, Symbol{"complaint"}, casualty.complaint);
      put(entry, Symbol{"request_id"}, casualty.request_id);
      put(entry, Symbol{"stack"}, wire::List{casualty.stack.begin(), casualty.stack.end()});
      hung.emplace_back(std::move(entry));
    }
    wire::List paused;
    for (const auto& [slot, trouble] : input_.pool.troubles()) {
      if (trouble.paused()) {
        paused.emplace_back(slot.value);
      }
    }
    if (!hung.empty()) {
      put(state.extra, Symbol{"hung"}, std::move(hung));
    }
    if (!paused.empty()) {
      put(state.extra, Symbol{"paused"}, std::move(paused));
    }
  }

  static Value* member(Value* parent, std::string_view key) {
    Map* map = parent != nullptr ? parent->as_map() : nullptr;
    if (map == nullptr) {
      return nullptr;
    }
    for (auto& [name, value] : *map) {
      if (name.as_symbol() != nullptr && name.as_symbol()->name == key) {
        return &value;
      }
    }
    return nullptr;
  }

  // What was given with -s or -m is a Float to Ruby even when it is whole; its defaults are not.
  void restore_reals(Value& document) const {
    Value* state = member(&document, "state");
    if (config_.seconds) {
      if (Value* seconds = member(member(state, "config"), "seconds"); seconds != nullptr) {
        *seconds = to_seconds(*config_.seconds);
      }
    }
    const Duration usual = pool::Config{}.ack_delay;
    if (config_.ack_mode == pool::AckMode::kTimer && config_.ack_delay != usual) {
      if (Value* timeout = member(member(state, "ack_mode"), "timeout"); timeout != nullptr) {
        *timeout = to_seconds(config_.ack_delay);
      }
    }
  }

  const ReportInput& input_;
  const pool::Config& config_;
  const pool::Ledger& ledger_;
};

}  // namespace

Value ping_request_id(const pool::Worker& worker) {
  if (worker.pinged_request_id.empty()) {
    return {};
  }
  Result<Value> value = wire::parse_json(worker.pinged_request_id);
  return value ? std::move(value).value() : Value(worker.pinged_request_id);
}

std::string state_yaml(const ReportInput& input) {
  return wire::encode_yaml(RubyReport(input).document());
}

}  // namespace einhorn::master
