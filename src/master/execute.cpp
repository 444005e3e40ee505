// Carrying out what the pool decides, and writing down what has changed.
#include <algorithm>

#include "base/limits.h"
#include "master/master.h"
#include "master/privileges.h"
#include "master/worker_program.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kEpilogueUpgraded = "Upgrade done";

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
    if (const auto* exited = std::get_if<pool::event::Exited>(&event)) {
      ask_for_last_output(exited->worker);
    }
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
    tell_event(event);
    std::rotate(events_.begin(), events_.begin() + static_cast<std::ptrdiff_t>(outcomes_from),
                events_.end());
    if (const auto* exited = std::get_if<pool::event::Exited>(&event)) {
      roster_->remove(exited->worker);
      if (interceptor_) {
        interceptor_->ended(exited->worker);
      }
      if (drains_) {
        drains_->forget(exited->worker);
      }
    }
  }
  stepping_ = false;
  persist();
  events_out_->flush();
  if (exit_code_) {
    leave(*exit_code_);
  }
}

void Master::carry_out(const pool::Action& action) {
  if (const auto* wanted = std::get_if<pool::Spawn>(&action)) {
    spawn(*wanted);
  } else if (const auto* signal = std::get_if<pool::SendSignal>(&action)) {
    const Roster::Process* process = roster_->find(signal->worker);
    if (process != nullptr && !withhold(*signal, *process)) {
      kernel_.signal(process->pidfd, process->pid, signal->signal, signal->group);
    }
  } else if (const auto* note = std::get_if<pool::Note>(&action)) {
    say(*note);
  } else if (const auto* sample = std::get_if<pool::TakeSamples>(&action)) {
    take_samples(*sample);
  } else if (const auto* hung = std::get_if<pool::Examine>(&action)) {
    examine(hung->worker);
  } else if (const auto* probe = std::get_if<pool::TakeProbe>(&action)) {
    take_probe(probe->worker);
  } else if (const auto* hook = std::get_if<pool::RunHook>(&action)) {
    run_hook(hook->hook, hook->worker, hook->version, {});
  } else if (const auto* unwanted = std::get_if<pool::EndHook>(&action)) {
    hooks_->give_up(pool::Hook::kBeforeStart, unwanted->worker, now_);
    hooks_->give_up(pool::Hook::kBeforeStop, unwanted->worker, now_);
  } else if (const auto* leaving = std::get_if<pool::Leave>(&action)) {
    leaving_ = leaving->exit_code;
    leave_when_written();
  }
}

// A stop signal of an intercepted worker may have to wait (--drain): true, and it will be sent.
bool Master::withhold(const pool::SendSignal& signal, const Roster::Process& process) {
  const pool::Worker* worker = drains_ ? pool_->find(signal.worker) : nullptr;
  // Only what the pool stops it with, and not a `signal` command of the same moment; and it leaves
  // itself at once at a quit.
  if (worker == nullptr || !worker->stopping() || worker->last_signaled_at != now_ ||
      !worker->signaled.has(signal.signal) || pool_->ledger().left) {
    return false;
  }
  // The end of our patience; but KILL may also be how it is stopped in the first place.
  if (signal.signal == SIGKILL &&
      (pool_->config().stop_signal != SIGKILL || drains_->withheld(signal.worker) != 0)) {
    drains_->forget(signal.worker);
    return false;
  }
  drains_->withhold(signal.worker, process.pid, signal.signal, now_);
  return true;
}

void Master::deliver_withheld(WorkerId worker, int signal) {
  if (const Roster::Process* process = roster_->find(worker)) {
    kernel_.signal(process->pidfd, process->pid, signal, signal == SIGKILL);
    note_worker(worker);
  }
}

wire::WorkerRecord Master::record_of(const pool::Worker& worker) const {
  const Roster::Process* process = roster_->find(worker.id);
  const Zygotes::Request asked = zygotes_ ? zygotes_->request(worker.id) : Zygotes::Request{};
  return {worker,
          process != nullptr ? process->pid : 0,
          process != nullptr && process->orphan,
          drains_ ? drains_->withheld(worker.id) : 0,
          asked.fork_id,
          asked.zygote};
}

os::SpawnSpec Master::spawn_spec(const pool::Spawn& action, const wire::Program& program,
                                 const std::vector<int>& own) {
  // An intercepted program gets its sockets when it binds.
  const bool intercepted = settings_.intercept != wire::Interception::kOff;
  const std::vector<std::uint32_t> shared =
      intercepted ? std::vector<std::uint32_t>{} : sockets_of(action.version);
  const int sockets = static_cast<int>(shared.size() + own.size());
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
    for (std::size_t i = 0; i < shared.size(); ++i) {
      const std::string& name = listeners_.at(shared[i]).name;
      if (!name.empty()) {
        replace_all(argument, "{fd:" + name + "}", std::to_string(first + static_cast<int>(i)));
      }
    }
  }
  auto& environment = spec.environment;
  for (const std::string& variable : program.environment) {
    if (!is_workers_own(variable)) {
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
  for (int i = 0; i < sockets; ++i) {
    const std::string fd = std::to_string(first + i);
    const auto at = static_cast<std::size_t>(i);
    const int from =
        at < shared.size() ? descriptors_.listeners.at(shared[at]) : own[at - shared.size()];
    const std::string& name = at < shared.size() ? listeners_.at(shared[at]).name : "";
    environment.push_back("EINHORN_FD_" + std::to_string(i) + "=" + fd);
    all += (all.empty() ? "" : " ") + fd;
    names += (i == 0 ? "" : ":") + (name.empty() ? "unknown" : name);
    spec.descriptors.push_back({from, first + i});
    if (at < shared.size() && listeners_.at(shared[at]).as_stdin) {
      spec.descriptors.push_back({from, 0});
    }
    spec.keep_below = std::max(spec.keep_below, from + 1);
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
  spec.keep_below = std::max(spec.keep_below, keep_below_);
  spec.identity = worker_identity(settings_.privileges, action.worker.slot);
  if (const std::string address = fill_pattern(settings_.probe_address, action.worker.slot, 0);
      !address.empty() && address.find("{pid}") == std::string::npos) {
    environment.push_back("EINHORN_PROBE_ADDRESS=" + address);
  }
  if (const auto& ping = pool_->config().health.ping_timeout) {
    // As for systemd: whoever is to say WATCHDOG=1, and how often at least.
    environment.push_back("WATCHDOG_USEC=" + std::to_string(ping->count() / 1000));
  }
  spec.intercept = settings_.intercept == wire::Interception::kSeccomp;
  spec.allow_io_uring = settings_.intercept_io_uring;
  spec.watcher = intercepted ? parent : 0;
  if (settings_.intercept == wire::Interception::kPreload) {
    preload_library(spec, action.worker);
  }
  if (settings_.command_socket_as_fd) {
    spec.connect_to = settings_.socket_path;
    spec.connect_as = first + sockets;
    environment.push_back("EINHORN_SOCK_FD=" + std::to_string(spec.connect_as));
  }
  spec.sibling = guard_.socket() >= 0;
  spec.parent_death_signal = settings_.kill_children_on_exit ? pool_->config().stop_signal : 0;
  spec.nice = has_renice_command() ? std::nullopt : settings_.nice_worker;
  for (const wire::ResourceLimit& limit : settings_.resource_limits) {
    spec.limits.push_back({limit.resource, limit.soft, limit.hard});
  }
  spec.note = journal_->note();
  return spec;
}

// The sockets that workers of that version share, by their index.
std::vector<std::uint32_t> Master::sockets_of(Version version) const {
  std::vector<std::uint32_t> indexes;
  for (const auto& [index, listener] : listeners_) {
    if (listener.since <= version && (!listener.until || version < *listener.until)) {
      indexes.push_back(index);
    }
  }
  return indexes;
}

// The sockets that this worker alone gets (-b ADDR:PORT+index). One that can't be opened is said,
// and is missing in the worker: it is there to be looked into, and serves without.
std::vector<int> Master::open_own_sockets(Slot slot) {
  std::vector<int> opened;
  for (const std::string& text : settings_.worker_binds) {
    Result<os::BindSpec> spec = os::parse_bind_spec(text);
    if (!spec) {
      continue;
    }
    const std::uint64_t port = std::uint64_t{spec->port} + slot.value;
    if (port > 65535) {
      log_->error("own_socket_failed", "-b " + text + ": worker " + std::to_string(slot.value) +
                                           " would get port " + std::to_string(port) +
                                           ", and there is no such port");
      continue;
    }
    spec->port = static_cast<std::uint16_t>(port);
    spec->reuse_address = true;  // the last worker's connections are no reason to wait
    Result<std::vector<os::OpenedListener>> listeners =
        kernel_.open_listeners(*spec, spec->backlog.value_or(settings_.backlog));
    if (!listeners) {
      log_->error("own_socket_failed", listeners.error().message());
      continue;
    }
    for (const os::OpenedListener& listener : *listeners) {
      Result<int> raised = kernel_.raise(listener.fd, keep_below_);
      opened.push_back(raised ? *raised : listener.fd);
    }
  }
  return opened;
}

// Before what the user loads into the program himself.
void Master::preload_library(os::SpawnSpec& spec, WorkerId worker) const {
  constexpr std::string_view kVariable = "LD_PRELOAD=";
  std::string value = std::string(kVariable) + settings_.intercept_library;
  std::erase_if(spec.environment, [&](const std::string& variable) {
    if (!variable.starts_with(kVariable)) {
      return false;
    }
    if (variable.size() > kVariable.size()) {
      value += ":" + variable.substr(kVariable.size());
    }
    return true;
  });
  spec.environment.push_back(std::move(value));
  for (std::string& variable : interceptor_->environment_for(worker)) {
    spec.environment.push_back(std::move(variable));
  }
}

// At once, without waiting for the end of the turn.
void Master::note_worker(WorkerId id) {
  const pool::Worker* worker = pool_->find(id);
  if (worker == nullptr) {
    return;
  }
  if (!journal_->append(wire::encode_entry(record_of(*worker)))) {
    log_->error("snapshot_failed", "Can't append to the snapshot");
  }
}

void Master::spawn(const pool::Spawn& action) {
  const auto program = programs_.find(action.version);
  if (program == programs_.end()) {
    events_.emplace_back(pool::event::SpawnFailed{
        action.worker, "version " + std::to_string(action.version.value) + " is not recorded"});
    return;
  }
  const bool preloaded = is_preloaded(action.version);
  if (preloaded) {
    zygotes_->number(action.worker);
  }
  // Written down first: after a sudden death the next master knows which slot this was for.
  note_worker(action.worker);
  if (preloaded) {
    zygotes_->fork(action.worker, action.version, now_);
    return;
  }
  const std::vector<int> own = open_own_sockets(action.worker.slot);
  os::SpawnSpec spec = spawn_spec(action, program->second, own);
  if (spec.note != nullptr) {
    spec.note->pid = 0;
    spec.note->slot = static_cast<std::int32_t>(action.worker.slot.value);
    spec.note->epoch = action.worker.epoch.value;
  }
  if (cgroups_) {
    cgroups_->before_spawn(action.worker, spec);
  }
  if (capture_) {
    capture_->before_spawn(action.worker, action.version, spec);
  }
  Result<os::Spawned> spawned = kernel_.spawn(spec);
  for (const int fd : own) {
    kernel_.close(fd);
  }
  if (capture_) {
    capture_->after_spawn(action.worker, spawned && !spawned->failed ? spawned->pid : 0);
  }
  if (cgroups_ && (!spawned || spawned->failed)) {
    static_cast<void>(cgroups_->ended(action.worker, now_));
  }
  if (!spawned) {
    events_.emplace_back(pool::event::SpawnFailed{action.worker, spawned.error().message()});
    return;
  }
  if (spawned->failed) {
    roster_->expect_ghost(spawned->pid);
    if (spawned->pidfd >= 0) {
      kernel_.close(spawned->pidfd);
    }
    guard_.ask_for(spawned->pid);
    events_.emplace_back(pool::event::SpawnFailed{action.worker, spawned->failed->message()});
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
  if (interceptor_) {
    interceptor_->add(action.worker, spawned->notify);
  }
  note_worker(action.worker);
  events_.emplace_back(pool::event::Spawned{action.worker});
  for (const Error& unmet : spawned->unmet) {
    log_->error("identity_unmet", "Worker " + std::to_string(process.pid) +
                                      " goes on without it: " + unmet.message());
  }
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
  events_out_->add(note);
  for (const LogLine& line : narrate(note, pid_of_, pool_->config().ack_mode)) {
    log_->write(line);
    if (line.upgrade && server_) {
      publish(line.level == Level::kError ? "ERROR: " + line.text : line.text, false, "");
    }
  }
  if (const auto* condemned = std::get_if<pool::note::Condemned>(&note)) {
    examiner_->record(*condemned, pid_of_(condemned->worker), now_);
  }
  run_hooks_after(note);
  if (!server_) {
    return;
  }
  if (std::holds_alternative<pool::note::Upgraded>(note)) {
    publish(std::string(kEpilogueUpgraded), true, "ok");
    forget_programs();
  } else if (const auto* back = std::get_if<pool::note::RolledBack>(&note)) {
    const bool failed = !pool_->ledger().failure.empty();
    publish(failed ? "Upgrade failed; rolled back to version " + std::to_string(back->version.value)
                   : "Rollback done",
            true, failed ? "failed" : "ok");
    forget_programs();
  } else if (const auto* incomplete = std::get_if<pool::note::RollBackIncomplete>(&note)) {
    publish("Upgrade failed, and version " + std::to_string(incomplete->version.value) +
                " does not come up again either",
            true, "failed");
  } else if (const auto* refused = std::get_if<pool::note::RollBackRefused>(&note)) {
    publish("Can't roll back: " + refused->reason, true, "could_not_start");
  } else if (std::holds_alternative<pool::note::Stopping>(note)) {
    publish("Einhorn is going down; the upgrade is over", true, "failed");
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
  if (zygotes_ && (changes.ledger || !changes.gone.empty())) {
    zygotes_->review();
  }
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
    entries += wire::encode_entry(record_of(*pool_->find(changed)));
  }
  for (const pool::SlotTrouble& slot : changes.slots) {
    entries += wire::encode_entry(slot);
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
  snapshot.troubles = pool_->troubles();
  for (const pool::Worker* worker : pool_->workers()) {
    snapshot.workers[worker->id.epoch] = record_of(*worker);
  }
  if (zygotes_) {
    snapshot.zygotes = zygotes_->records();
  }
  snapshot.hooks = hooks_->records();
  if (server_) {
    for (const auto& [id, connection] : server_->connections()) {
      if (connection.kept && !connection.closing) {
        snapshot.connections[id] = CommandServer::record_of(connection);
        snapshot.connections[id].input.clear();
        snapshot.connections[id].output.clear();
      }
    }
  }
  return snapshot;
}

// Behind the last line of the last worker, and the hooks that ran when it went.
void Master::leave_when_written() {
  const bool hooked = !hooks_->idle() && pool_->alive() == 0 && !hurried_;
  if (leaving_ && !exit_code_ && !hooked && (!capture_ || capture_->finish(now_))) {
    exit_code_ = leaving_;
  }
}

void Master::leave(int exit_code) {
  if (zygotes_) {
    zygotes_->end_all();
  }
  hooks_->end_all();
  publish_what_waited();
  if (cgroups_) {
    cgroups_->leave();
  }
  // The guard would remove them too, but does not know those that were made again.
  for (const wire::OwnFile& file : settings_.files) {
    kernel_.remove_file(file.path, file.device, file.inode);
  }
  if (guard_.socket() >= 0) {
    guard_.leave_with(exit_code);
  }
}

}  // namespace einhorn::master
