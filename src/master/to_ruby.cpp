#include "master/to_ruby.h"

#include <algorithm>

#include "base/signals.h"
#include "master/log.h"
#include "os/become.h"
#include "os/linux/linux_kernel.h"
#include "os/state_files.h"
#include "wire/json.h"
#include "wire/ruby_state.h"
#include "wire/yaml.h"

namespace einhorn::master {
namespace {

std::optional<WallTime> wall(const std::optional<Instant>& at, WallOffset offset) {
  return at ? std::optional<WallTime>(to_wall(*at, offset)) : std::nullopt;
}

std::optional<std::string> given(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional<std::string>(text);
}

wire::RubyChild child_of(const wire::WorkerRecord& record, WallOffset offset) {
  const pool::Worker& worker = record.worker;
  wire::RubyChild child;
  child.pid = record.pid;
  child.version = static_cast<std::int64_t>(worker.version.value);
  child.acked = worker.acked();
  for (const int number : worker.signaled.numbers()) {
    child.signaled.push_back(signal_name(number));
  }
  child.last_signaled_at = wall(worker.last_signaled_at, offset);
  child.index = worker.id.slot.value;
  child.spinup_time = to_wall(worker.spawned_at, offset);
  child.pinged_at = wall(worker.pinged_at, offset);
  if (!worker.pinged_request_id.empty()) {
    if (Result<wire::Value> id = wire::parse_json(worker.pinged_request_id)) {
      child.pinged_request_id = *id;
    }
  }
  return child;
}

void fill_in_config(wire::RubyState& state, const pool::Config& config,
                    const wire::Settings& settings) {
  state.config.number = config.number;
  state.config.backlog = settings.backlog;
  state.config.seconds = config.seconds ? to_seconds(*config.seconds) : 1;
  if (config.max_unacked_given) {
    state.config.max_unacked = config.max_unacked;
  }
  if (config.max_upgrade_additional) {
    state.config.max_upgrade_additional = *config.max_upgrade_additional;
  }
  if (config.ack_mode == pool::AckMode::kTimer) {
    state.ack_mode.timeout = to_seconds(config.ack_delay);
  } else {
    state.ack_mode = {"manual", std::nullopt};  // READY=1 means nothing to Ruby
  }
  if (config.signal_timeout) {
    state.signal_timeout = to_seconds(*config.signal_timeout);
  }
}

wire::RubyState state_of(const wire::Snapshot& snapshot) {
  const wire::Settings& settings = snapshot.settings;
  const WallOffset offset = settings.wall_offset;
  wire::RubyState state;
  fill_in_config(state, snapshot.config, settings);
  for (const auto& [epoch, record] : snapshot.workers) {
    if (record.pid != 0 && !record.orphan) {
      state.children.push_back(child_of(record, offset));
    }
  }
  state.version = static_cast<std::int64_t>(snapshot.ledger.version.value);
  state.orig_cmd = settings.original_command;
  const auto program = snapshot.programs.find(snapshot.ledger.version);
  state.cmd =
      program != snapshot.programs.end() ? program->second.arguments : settings.original_command;
  for (const auto& [index, listener] : snapshot.listeners) {
    state.bind.push_back({listener.host, listener.port_given, listener.flags});
    state.bind_fds.push_back(settings.first_descriptor + static_cast<std::int64_t>(index));
    state.bound_ports.push_back(listener.port);
  }
  state.upgrading = snapshot.ledger.upgrade.has_value();
  state.smooth_upgrade = settings.pending_smooth;
  state.reloading_for_upgrade = settings.pending_upgrades > 0;
  state.cmd_name = given(settings.name);
  state.verbosity = settings.verbosity;
  state.generation = static_cast<std::int64_t>(settings.generation) + 1;
  state.last_spinup = wall(snapshot.ledger.last_spinup, offset);
  state.kill_children_on_exit = settings.kill_children_on_exit;
  state.command_socket_as_fd = settings.command_socket_as_fd;
  state.socket_path = given(settings.socket_path_given);
  state.pidfile = given(settings.pidfile_given);
  state.lockfile = given(settings.lockfile_given);
  state.consecutive_deaths_before_ack = snapshot.ledger.deaths_before_ack;
  state.last_upgraded = wall(snapshot.ledger.last_upgraded, offset);
  state.nice.master = settings.nice_master;
  state.nice.worker = settings.nice_worker;
  state.nice.renice_cmd = settings.renice_command;
  state.reexec_commandline = settings.reexec_commandline;
  state.drop_environment_variables = settings.drop_environment;
  return state;
}

wire::RubyConnection connection_of(const wire::ConnectionRecord& record, int fd) {
  wire::RubyConnection connection;
  connection.socket = fd;
  connection.read_buffer = record.input;
  connection.write_buffer = record.output;
  for (const std::string& subscription : record.subscriptions) {
    if (Result<wire::Value> id = wire::parse_json(std::string_view(subscription).substr(1))) {
      connection.subscriptions.push_back({"upgrade", *id});
    }
  }
  return connection;
}

std::vector<std::string> environment_of(const wire::Settings& settings) {
  std::vector<std::string> environment;
  for (const std::string& variable : settings.start_environment) {
    const std::string name = variable.substr(0, variable.find('='));
    if (std::find(settings.drop_environment.begin(), settings.drop_environment.end(), name) ==
        settings.drop_environment.end()) {
      environment.push_back(variable);
    }
  }
  return environment;
}

Result<wire::Snapshot> read_snapshot(const Boot& boot, os::Kernel& kernel) {
  for (const auto& [name, fd] : boot.descriptors) {
    if (name == "snapshot") {
      Result<std::string> bytes = kernel.read_all(fd.get());
      return bytes ? wire::decode_snapshot(*bytes) : Result<wire::Snapshot>(bytes.error());
    }
  }
  return make_error("state for Ruby", "there is no snapshot");
}

// Everything of ours goes above the numbers by which workers know their sockets.
Status clear_the_way(Boot& boot, os::Kernel& kernel, int least) {
  for (auto& [name, fd] : boot.descriptors) {
    Result<int> raised = kernel.raise(fd.get(), least);
    if (!raised) {
      return raised.error();
    }
    static_cast<void>(fd.release());  // closed by now
    fd.reset(*raised);
  }
  return Ok{};
}

// The program of --reexec-as has to be there now; it was when it was checked.
Status find_successor(const wire::Settings& settings, os::Kernel& kernel) {
  std::string path;
  for (const std::string& variable : settings.start_environment) {
    if (variable.starts_with("PATH=")) {
      path = variable.substr(5);
    }
  }
  if (settings.reexec_commandline.empty()) {
    return make_error("--to-ruby", "needs --reexec-as");
  }
  const Result<std::string> found = kernel.find_program(settings.reexec_commandline[0], path, "");
  return found ? Status(Ok{}) : Status(found.error());
}

Result<os::Becoming> plan(Boot& boot, os::Kernel& kernel) {
  const Result<wire::Snapshot> read = read_snapshot(boot, kernel);
  if (!read) {
    return read.error();
  }
  const wire::Snapshot& snapshot = *read;
  const wire::Settings& settings = snapshot.settings;
  if (Status found = find_successor(settings, kernel); !found) {
    return found.error();
  }
  os::Becoming becoming;
  becoming.out_of_the_way = settings.first_descriptor + static_cast<int>(snapshot.listeners.size());
  if (Status clear = clear_the_way(boot, kernel, becoming.out_of_the_way); !clear) {
    return clear.error();
  }
  wire::RubyHandoff handoff;
  handoff.state = state_of(snapshot);
  for (const auto& [name, fd] : boot.descriptors) {
    if (name.starts_with("listen:")) {
      const auto index = static_cast<int>(std::strtol(name.c_str() + 7, nullptr, 10));
      becoming.moves.push_back({fd.get(), settings.first_descriptor + index});
    } else if (name == "command") {
      becoming.kept.push_back(fd.get());
      handoff.servers.push_back({fd.get()});
    } else if (name.starts_with("conn:")) {
      const auto id = std::strtoull(name.c_str() + 5, nullptr, 10);
      if (const auto record = snapshot.connections.find(id); record != snapshot.connections.end()) {
        becoming.kept.push_back(fd.get());
        handoff.connections.push_back(connection_of(record->second, fd.get()));
      }
    }
  }
  if (snapshot.config.ack_mode == pool::AckMode::kTimer) {
    for (const auto& [epoch, record] : snapshot.workers) {
      if (record.worker.state == pool::WorkerState::kStarting && record.pid != 0) {
        handoff.ack_timers.push_back({to_seconds(snapshot.config.ack_delay),
                                      to_wall(record.worker.spawned_at, settings.wall_offset),
                                      record.pid});
      }
    }
  }
  becoming.state = wire::encode_yaml(wire::encode_ruby_handoff(handoff));
  becoming.arguments = settings.reexec_commandline;
  becoming.command = settings.original_command;
  becoming.environment = environment_of(settings);
  becoming.remove = settings.notify_path;
  return becoming;
}

}  // namespace

Status check_leaving_to_ruby(const wire::Settings& settings, const pool::Config& config) {
  std::string why;
  if (config.ack_mode == pool::AckMode::kNotify) {
    why = "-m notify, so no worker would ever count as up";
  } else if (!settings.directory.empty()) {
    why = "--chdir, so workers would start in another directory";
  }
  for (const std::string& argument : settings.original_command) {
    for (const std::string_view placeholder : {"{fd}", "{fd:", "{index}"}) {
      if (why.empty() && argument.find(placeholder) != std::string::npos) {
        why = "replacements in arguments, so workers would be given \"" + argument + "\"";
      }
    }
  }
  return why.empty() ? Status(Ok{}) : make_error("--to-ruby", "Ruby's Einhorn has no " + why);
}

os::MasterIs leave_to_ruby(Boot& boot, pid_t master, int control) {
  os::MasterIs left = os::MasterIs::kThere;
  Result<std::unique_ptr<os::LinuxKernel>> kernel = os::LinuxKernel::create();
  if (kernel) {
    const std::vector<std::string>& reexec = boot.settings.reexec_commandline;
    const std::string name = reexec.empty() ? "" : reexec[0];
    Log log(**kernel, (*kernel)->own_pid(), boot.settings.verbosity, boot.settings.log_json);
    static_cast<void>(log.open(boot.settings.log_file).has_value());
    log.set_time(to_wall((*kernel)->now(), boot.settings.wall_offset));
    log.info("leaving_to_ruby", "About to re-exec einhorn master as " + name);
    const Result<os::Becoming> becoming = plan(boot, **kernel);
    const Error failed = becoming ? os::become(*becoming, master, control, left) : becoming.error();
    log.error("leaving_failed", "Could not become " + name + ": " + failed.message());
  }
  if (left == os::MasterIs::kThere) {
    os::tell(control, "X_EINHORN_THAW=1");
  }
  return left;
}

}  // namespace einhorn::master
