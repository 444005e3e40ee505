// The members of Ruby's state, in Ruby's order, once for both directions: ruby_encode.cpp writes
// them, ruby_decode.cpp reads them. Nobody else includes this.
//
// `Fields` has a function for each kind of member: `field` is always written, `given` and
// `nonempty` only when there is something to write, `interval` is seconds, `symbol` a Symbol, `set`
// a Set.
#pragma once

#include <string_view>

namespace einhorn::wire {

inline constexpr std::string_view kServerClass = "Einhorn::Event::CommandServer";
inline constexpr std::string_view kConnectionClass = "Einhorn::Event::Connection";
inline constexpr std::string_view kTimerClass = "Einhorn::Event::ACKTimer";

template <typename Fields, typename Config>
void visit_config(Fields& fields, Config& config) {
  fields.field("number", config.number);
  fields.field("backlog", config.backlog);
  fields.interval("seconds", config.seconds);
  fields.given("max_unacked", config.max_unacked);
  fields.given("max_upgrade_additional", config.max_upgrade_additional);
  fields.given("gc_before_fork", config.gc_before_fork);
}

template <typename Fields, typename AckMode>
void visit_ack_mode(Fields& fields, AckMode& mode) {
  fields.symbol("type", mode.type);
  fields.interval("timeout", mode.timeout);
}

template <typename Fields, typename Nice>
void visit_nice(Fields& fields, Nice& nice) {
  fields.field("master", nice.master);
  fields.field("worker", nice.worker);
  fields.field("renice_cmd", nice.renice_cmd);
}

template <typename Fields, typename Child>
void visit_worker(Fields& fields, Child& child) {
  fields.field("version", child.version);
  fields.field("acked", child.acked);
  fields.set("signaled", child.signaled);
  fields.field("last_signaled_at", child.last_signaled_at);
  fields.field("index", child.index);
  fields.field("spinup_time", child.spinup_time);
  fields.given("pinged_at", child.pinged_at);
  fields.given("pinged_request_id", child.pinged_request_id);
}

template <typename Fields, typename State>
void visit_state(Fields& fields, State& state) {
  fields.field("children", state.children);
  fields.field("config", state.config);
  fields.field("versions", state.versions);
  fields.field("version", state.version);
  fields.field("sockets", state.sockets);
  fields.field("orig_cmd", state.orig_cmd);
  fields.field("bind", state.bind);
  fields.field("bind_fds", state.bind_fds);
  fields.field("bound_ports", state.bound_ports);
  fields.field("cmd", state.cmd);
  fields.field("script_name", state.script_name);
  fields.field("respawn", state.respawn);
  fields.field("upgrading", state.upgrading);
  fields.field("smooth_upgrade", state.smooth_upgrade);
  fields.field("reloading_for_upgrade", state.reloading_for_upgrade);
  fields.field("path", state.path);
  fields.field("cmd_name", state.cmd_name);
  fields.field("verbosity", state.verbosity);
  fields.field("generation", state.generation);
  fields.field("last_spinup", state.last_spinup);
  fields.field("ack_mode", state.ack_mode);
  fields.field("kill_children_on_exit", state.kill_children_on_exit);
  fields.field("command_socket_as_fd", state.command_socket_as_fd);
  fields.field("socket_path", state.socket_path);
  fields.field("pidfile", state.pidfile);
  fields.field("lockfile", state.lockfile);
  fields.field("consecutive_deaths_before_ack", state.consecutive_deaths_before_ack);
  fields.field("last_upgraded", state.last_upgraded);
  fields.field("nice", state.nice);
  fields.field("reexec_commandline", state.reexec_commandline);
  fields.field("drop_environment_variables", state.drop_environment_variables);
  fields.field("signal_timeout", state.signal_timeout);
  fields.field("preloaded", state.preloaded);
}

template <typename Fields, typename Connection>
void visit_connection(Fields& fields, Connection& connection) {
  fields.field("socket", connection.socket);
  fields.nonempty("read_buffer", connection.read_buffer);
  fields.nonempty("write_buffer", connection.write_buffer);
  fields.field("subscriptions", connection.subscriptions);
}

template <typename Fields, typename Timer>
void visit_timer(Fields& fields, Timer& timer) {
  fields.interval("time", timer.time);
  fields.field("start", timer.start);
  fields.field("pid", timer.pid);
}

}  // namespace einhorn::wire
