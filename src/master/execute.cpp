// Carrying out what the pool decides, and writing down what has changed.
#include <algorithm>

#include "base/limits.h"
#include "master/master.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kEpilogueUpgraded = "Upgrade done";

// Variables that are each worker's own; whatever Einhorn itself was started with is not passed on.
bool is_ours(std::string_view variable) {
  for (const std::string_view prefix : {"EINHORN_", "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=",
                                        "NOTIFY_SOCKET=", "WATCHDOG_PID=", "WATCHDOG_USEC="}) {
    if (variable.starts_with(prefix)) {
      return true;
    }
  }
  return false;
}

void replace_all(std::string& text, std::string_view what, const std::string& by) {
  std::size_t at = 0;
  while ((at = text.find(what, at)) != std::string::npos) {
    text.replace(at, what.size(), by);
    at += by.size();
  }
}

}  // namespace

void Master::apply(const pool::Event& event) {
  events_.push_back(event);
  drain_events();
}

// Events in the order they came; outcomes of actions are put in front of what waits.
void Master::drain_events() {
  if (stepping_) {
    return;
  }
  stepping_ = true;
  while (!events_.empty() && !exit_code_) {
    const pool::Event event = std::move(events_.front());
    events_.pop_front();
    const std::vector<pool::Action> actions = pool_->step(event, now_);
    const std::size_t outcomes_from = events_.size();
    if (const auto* acked = std::get_if<pool::event::Acked>(&event)) {
      // Nobody says it twice: written down before anything is done about it.
      const pool::Worker* worker = pool_->find(acked->worker);
      if (worker != nullptr && !worker->stopping()) {
        note_worker(acked->worker);
      }
    }
    for (const pool::Action& action : actions) {
      carry_out(action);
    }
    std::rotate(events_.begin(), events_.begin() + static_cast<std::ptrdiff_t>(outcomes_from),
                events_.end());
    if (const auto* exited = std::get_if<pool::event::Exited>(&event)) {
      roster_->remove(exited->worker);
    }
  }
  stepping_ = false;
  persist();
  if (exit_code_) {
    leave(*exit_code_);
  }
}

void Master::carry_out(const pool::Action& action) {
  if (const auto* wanted = std::get_if<pool::Spawn>(&action)) {
    spawn(*wanted);
  } else if (const auto* signal = std::get_if<pool::SendSignal>(&action)) {
    if (const Roster::Process* process = roster_->find(signal->worker)) {
      kernel_.signal(process->pidfd, process->pid, signal->signal, signal->group);
    }
  } else if (const auto* note = std::get_if<pool::Note>(&action)) {
    say(*note);
  } else if (const auto* leaving = std::get_if<pool::Leave>(&action)) {
    exit_code_ = leaving->exit_code;
  }
}

os::SpawnSpec Master::spawn_spec(const pool::Spawn& action, const wire::Program& program) {
  // An intercepted program gets its sockets when it binds.
  const bool intercepted = settings_.intercept != wire::Interception::kOff;
  const int sockets = intercepted ? 0 : static_cast<int>(listeners_.size());
  const int first = settings_.first_descriptor;
  const std::string index = std::to_string(action.worker.slot.value);
  os::SpawnSpec spec;
  spec.program = program.path;
  spec.directory = program.directory;
  spec.arguments = program.arguments;
  for (std::string& argument : spec.arguments) {
    if (argument.find('{') == std::string::npos) {
      continue;
    }
    replace_all(argument, "{index}", index);
    if (sockets > 0) {
      replace_all(argument, "{fd}", std::to_string(first));
    }
    for (const auto& [number, listener] : listeners_) {
      if (!listener.name.empty()) {
        replace_all(argument, "{fd:" + listener.name + "}",
                    std::to_string(first + static_cast<int>(number)));
      }
    }
  }
  auto& environment = spec.environment;
  for (const std::string& variable : program.environment) {
    if (!is_ours(variable)) {
      environment.push_back(variable);
    }
  }
  const Pid parent = guard_.socket() >= 0 ? public_pid_ : own_pid_;
  environment.push_back("EINHORN_MASTER_PID=" + std::to_string(parent));
  environment.push_back("EINHORN_SOCK_PATH=" + (settings_.socket_path_given.empty()
                                                    ? settings_.socket_path
                                                    : settings_.socket_path_given));
  environment.push_back("EINHORN_FD_COUNT=" + std::to_string(sockets));
  std::string all;
  std::string names;
  for (const auto& [number, listener] : listeners_) {
    if (intercepted) {
      break;
    }
    const std::string fd = std::to_string(first + static_cast<int>(number));
    environment.push_back("EINHORN_FD_" + std::to_string(number) + "=" + fd);
    all += (all.empty() ? "" : " ") + fd;
    names += (number == 0 ? "" : ":") + (listener.name.empty() ? "unknown" : listener.name);
  }
  if (sockets > 0) {
    environment.push_back("EINHORN_FDS=" + all);
    if (first == 3) {
      environment.push_back("LISTEN_FDS=" + std::to_string(sockets));
      environment.push_back("LISTEN_FDNAMES=" + names);
      spec.pid_variable = "LISTEN_PID=";
    }
  }
  environment.push_back("EINHORN_CHILD_INDEX=" + index);
  environment.push_back("NOTIFY_SOCKET=" + settings_.notify_path);
  if (!intercepted) {
    spec.descriptors = moves_;
  }
  spec.keep_below = keep_below_;
  spec.intercept = settings_.intercept == wire::Interception::kSeccomp;
  spec.allow_io_uring = settings_.intercept_io_uring;
  spec.watcher = parent;
  if (settings_.command_socket_as_fd) {
    spec.connect_to = settings_.socket_path;
    spec.connect_as = first + sockets;
    environment.push_back("EINHORN_SOCK_FD=" + std::to_string(spec.connect_as));
  }
  spec.sibling = guard_.socket() >= 0;
  spec.parent_death_signal = settings_.kill_children_on_exit ? pool_->config().stop_signal : 0;
  spec.nice = has_renice_command() ? std::nullopt : settings_.nice_worker;
  spec.note = journal_->note();
  return spec;
}

// At once, without waiting for the end of the turn.
void Master::note_worker(WorkerId id) {
  const pool::Worker* worker = pool_->find(id);
  if (worker == nullptr) {
    return;
  }
  const Roster::Process* process = roster_->find(id);
  if (!journal_->append(
          wire::encode_entry(wire::WorkerRecord{*worker, process != nullptr ? process->pid : 0,
                                                process != nullptr && process->orphan}))) {
    log_->error("snapshot_failed", "Can't append to the snapshot");
  }
}

void Master::spawn(const pool::Spawn& action) {
  const auto program = programs_.find(action.version);
  if (program == programs_.end()) {
    events_.push_back(pool::event::SpawnFailed{
        action.worker, "version " + std::to_string(action.version.value) + " is not recorded"});
    return;
  }
  // Written down first: after a sudden death the next master knows which slot this was for.
  note_worker(action.worker);
  const os::SpawnSpec spec = spawn_spec(action, program->second);
  if (spec.note != nullptr) {
    spec.note->pid = 0;
    spec.note->slot = static_cast<std::int32_t>(action.worker.slot.value);
    spec.note->epoch = action.worker.epoch.value;
  }
  Result<os::Spawned> spawned = kernel_.spawn(spec);
  if (!spawned) {
    events_.push_back(pool::event::SpawnFailed{action.worker, spawned.error().message()});
    return;
  }
  if (spawned->failed) {
    roster_->expect_ghost(spawned->pid);
    if (spawned->pidfd >= 0) {
      kernel_.close(spawned->pidfd);
    }
    guard_.ask_for(spawned->pid);
    events_.push_back(pool::event::SpawnFailed{action.worker, spawned->failed->message()});
    return;
  }
  Roster::Process process;
  process.worker = action.worker;
  process.pid = spawned->pid;
  process.pidfd = spawned->pidfd;
  process.own = !spec.sibling;
  roster_->add(process);
  if (settings_.command_socket_as_fd) {
    server_->set_extra_places(roster_->size());
  }
  if (spawned->notify >= 0) {
    interceptor_->add(action.worker, spawned->notify);
  }
  note_worker(action.worker);
  events_.push_back(pool::event::Spawned{action.worker});
  if (spawned->nice_error != 0) {
    tell_nice_failed("worker " + std::to_string(process.pid), *spec.nice,
                     Error{spawned->nice_error, "setpriority", ""});
  } else if (settings_.nice_worker) {
    renice(process.pid, *settings_.nice_worker);
  }
}

bool Master::has_renice_command() const {
  return settings_.renice_command != wire::Settings{}.renice_command && guard_.socket() >= 0;
}

// --nice's third part is there for levels that we have no right to set: it is a command of the
// shell, such as `sudo renice`. The usual one needs no process, as we do the same ourselves. False:
// it is the usual one.
bool Master::renice(Pid pid, int level) {
  if (!has_renice_command()) {
    return false;
  }
  const std::string command =
      settings_.renice_command + " " + std::to_string(level) + " -p " + std::to_string(pid);
  log_->info("renicing", "Running \"" + command + "\" to renice to level " + std::to_string(level));
  os::SpawnSpec spec;
  spec.program = "/bin/sh";
  spec.arguments = {"sh", "-c", command};
  spec.environment = settings_.start_environment;
  spec.keep_below = keep_below_;
  Result<os::Spawned> spawned = kernel_.spawn(spec);
  if (!spawned || spawned->failed) {
    log_->error("renice_failed",
                "Could not run \"" + command + "\", but continuing on anyway: " +
                    (spawned ? spawned->failed->message() : spawned.error().message()));
  }
  if (spawned) {
    if (const int pidfd = spawned->pidfd; pidfd >= 0) {
      kernel_.close(pidfd);
    }
    if (spawned->failed) {
      roster_->expect_ghost(spawned->pid);
      guard_.ask_for(spawned->pid);
    } else {
      renicers_.insert(spawned->pid);
    }
  }
  return true;
}

void Master::tell_nice_failed(const std::string& who, int level, const Error& error) {
  log_->error("renice_failed", "Could not set the nice level of " + who + " to " +
                                   std::to_string(level) +
                                   ", but continuing on anyway: " + error.message());
}

void Master::say(const pool::Note& note) {
  for (const LogLine& line : narrate(note, pid_of_, pool_->config().ack_mode)) {
    log_->write(line);
    if (line.upgrade && server_) {
      server_->publish(line.level == Level::kError ? "ERROR: " + line.text : line.text, false, "");
    }
  }
  if (!server_) {
    return;
  }
  if (std::holds_alternative<pool::note::Upgraded>(note)) {
    server_->publish(std::string(kEpilogueUpgraded), true, "ok");
    forget_programs();
  } else if (const auto* back = std::get_if<pool::note::RolledBack>(&note)) {
    const bool failed = !pool_->ledger().failure.empty();
    server_->publish(
        failed ? "Upgrade failed; rolled back to version " + std::to_string(back->version.value)
               : "Rollback done",
        true, failed ? "failed" : "ok");
    forget_programs();
  } else if (const auto* incomplete = std::get_if<pool::note::RollBackIncomplete>(&note)) {
    server_->publish("Upgrade failed, and version " + std::to_string(incomplete->version.value) +
                         " does not come up again either",
                     true, "failed");
  } else if (const auto* refused = std::get_if<pool::note::RollBackRefused>(&note)) {
    server_->publish("Can't roll back: " + refused->reason, true, "could_not_start");
  } else if (std::holds_alternative<pool::note::Stopping>(note)) {
    server_->publish("Einhorn is going down; the upgrade is over", true, "failed");
  }
}

void Master::forget_programs() {
  const std::set<Version> used = pool_->versions_in_use();
  for (auto it = programs_.begin(); it != programs_.end();) {
    if (used.contains(it->first)) {
      ++it;
      continue;
    }
    static_cast<void>(journal_->append(wire::encode_gone(it->first)).has_value());
    it = programs_.erase(it);
  }
}

// Everything that the last events changed, appended to the snapshot.
void Master::persist() {
  const pool::Pool::Changes changes = pool_->take_changes();
  std::string entries;
  // First, so that an epoch is not used again when only the beginning of this gets written.
  if (changes.ledger) {
    entries += wire::encode_entry(pool_->ledger());
  }
  if (changes.config) {
    entries += wire::encode_entry(pool_->config());
  }
  for (const WorkerId gone : changes.gone) {
    entries += wire::encode_gone(gone);
  }
  for (const WorkerId changed : changes.changed) {
    const Roster::Process* process = roster_->find(changed);
    entries += wire::encode_entry(wire::WorkerRecord{*pool_->find(changed),
                                                     process != nullptr ? process->pid : 0,
                                                     process != nullptr && process->orphan});
  }
  if (std::exchange(settings_dirty_, false)) {
    entries += wire::encode_entry(settings_);
  }
  Status written = Ok{};
  if (!entries.empty() && !journal_->broken()) {
    written = journal_->append(entries);
  }
  // A new file that the guard can't be given at once would be lost with us.
  if (journal_->bloated() && !guard_.blocked()) {
    written = journal_->rewrite(snapshot());
  }
  if (!written) {
    log_->error("snapshot_failed", "Can't write the snapshot: " + written.error().message());
  }
}

wire::Snapshot Master::snapshot() const {
  wire::Snapshot snapshot;
  snapshot.settings = settings_;
  snapshot.config = pool_->config();
  snapshot.ledger = pool_->ledger();
  snapshot.programs = programs_;
  snapshot.listeners = listeners_;
  for (const pool::Worker* worker : pool_->workers()) {
    const Roster::Process* process = roster_->find(worker->id);
    snapshot.workers[worker->id.epoch] = wire::WorkerRecord{
        *worker, process != nullptr ? process->pid : 0, process != nullptr && process->orphan};
  }
  if (server_) {
    for (const auto& [id, connection] : server_->connections()) {
      if (connection.kept) {
        snapshot.connections[id] = CommandServer::record_of(connection);
        snapshot.connections[id].input.clear();
        snapshot.connections[id].output.clear();
      }
    }
  }
  return snapshot;
}

void Master::leave(int exit_code) {
  // The guard would remove them too, but does not know those that were made again.
  for (const wire::OwnFile& file : settings_.files) {
    kernel_.remove_file(file.path, file.device, file.inode);
  }
  if (guard_.socket() >= 0) {
    guard_.leave_with(exit_code);
  }
}

}  // namespace einhorn::master
