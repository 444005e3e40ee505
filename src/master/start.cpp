// From the guard's descriptors and the snapshot to a master that acts.
#include <algorithm>
#include <array>
#include <csignal>
#include <utility>

#include "base/limits.h"
#include "base/numbers.h"
#include "master/master.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kListenerPrefix = "listen:";
constexpr std::string_view kConnectionPrefix = "conn:";

// "listen:12" -> 12
std::optional<std::uint64_t> number_behind(std::string_view prefix, std::string_view name) {
  return name.starts_with(prefix) ? whole_number<std::uint64_t>(name.substr(prefix.size()))
                                  : std::nullopt;
}

// Workers that could not be written down have used epochs all the same: the last start is in the
// note, and the guard keeps their pipes and watches. A second worker under one of these would lose
// its pipe with the first.
void pass_used_epochs(std::uint64_t last_started,
                      const std::vector<std::pair<std::string, int>>& kept, pool::Ledger& ledger) {
  ledger.next_epoch = std::max(ledger.next_epoch, last_started + 1);
  for (const auto& [name, fd] : kept) {
    const auto epoch = Capture::epoch_in(name);
    const std::uint64_t used = epoch ? *epoch : Interceptor::epoch_in(name).value_or(0);
    ledger.next_epoch = std::max(ledger.next_epoch, used + 1);
  }
}

}  // namespace

Master::Master(os::Kernel& kernel, int control)
    : kernel_(kernel),
      guard_(kernel, control),
      load_watch_(kernel),
      shares_(kernel),
      commands_(*this) {
  pid_of_ = [this](WorkerId worker) { return roster_ ? roster_->pid_of(worker) : 0; };
}

Master::~Master() {
  for (const int fd : {descriptors_.command, descriptors_.notify, descriptors_.snapshot,
                       handoff_.pidfd, handoff_.control}) {
    if (fd >= 0) {
      kernel_.close(fd);
    }
  }
  for (const auto& [index, fd] : descriptors_.listeners) {
    kernel_.close(fd);
  }
}

Result<std::unique_ptr<Master>> Master::create(os::Kernel& kernel, int control, Duration patience,
                                               std::vector<std::string> environment,
                                               ReadConfig read_config) {
  std::unique_ptr<Master> master(new Master(kernel, control));
  master->now_ = kernel.now();
  master->environment_ = std::move(environment);
  master->read_config_ = std::move(read_config);
  if (Status received = master->receive(patience); !received) {
    return received.error();
  }
  if (Status restored = master->restore(); !restored) {
    return restored.error();
  }
  if (Status ours = master->take_turn(); !ours) {
    return ours.error();
  }
  master->resume();
  return master;
}

// Everything that the guard keeps, up to its word to go.
Status Master::receive(Duration patience) {
  if (Status watched = kernel_.watch(guard_.socket(), kControlToken, {true, false}); !watched) {
    return watched;
  }
  const Instant deadline = now_ + patience;
  guard_.hello();
  for (;;) {
    const std::optional<GuardSays> said = guard_.next();
    if (!said) {
      if (kernel_.now() >= deadline) {
        return make_error("start of the master", "the guard did not hand anything over");
      }
      std::array<os::Ready, 4> ready;
      kernel_.wait(ready, deadline);
      continue;
    }
    if (std::holds_alternative<GuardGone>(*said)) {
      return make_error("start of the master", "the guard is gone");
    }
    if (const Go* go = std::get_if<Go>(&*said)) {
      successor_of_master_ = go->successor;
      manager_words_ = go->manager;
      return Ok{};
    }
    if (const Kept* kept = std::get_if<Kept>(&*said)) {
      for (const auto& [name, fd] : kept->fds) {
        if (name == "command") {
          descriptors_.command = fd;
        } else if (name == "notify") {
          descriptors_.notify = fd;
        } else if (name == "snapshot") {
          descriptors_.snapshot = fd;
        } else if (const auto index = number_behind(kListenerPrefix, name)) {
          descriptors_.listeners[static_cast<std::uint32_t>(*index)] = fd;
        } else if (const auto id = number_behind(kConnectionPrefix, name)) {
          descriptors_.connections[*id] = fd;
        } else {
          descriptors_.others.emplace_back(name, fd);
        }
      }
    }
  }
}

Status Master::restore() {
  if (descriptors_.snapshot < 0 || descriptors_.command < 0 || descriptors_.notify < 0) {
    return make_error("start of the master", "the guard did not hand over all it must keep");
  }
  Result<std::string> bytes = kernel_.read_all(descriptors_.snapshot);
  if (!bytes) {
    return bytes.error();
  }
  Result<wire::Snapshot> read = wire::decode_snapshot(*bytes);
  if (!read) {
    return read.error();
  }
  os::SpawnNote note;
  if (bytes->size() >= sizeof(note)) {
    std::copy_n(bytes->data(), sizeof(note), reinterpret_cast<char*>(&note));
  }
  settings_ = read->settings;
  programs_ = std::move(read->programs);
  listeners_ = std::move(read->listeners);
  own_pid_ = kernel_.own_pid();
  public_pid_ = kernel_.own_parent();
  if (!settings_.started_at) {
    settings_.started_at = now_;
    settings_.wall_offset = kernel_.wall_offset();
  }
  log_ = std::make_unique<Log>(kernel_, public_pid_, settings_.verbosity, settings_.log_json);
  log_->set_time(to_wall(now_, settings_.wall_offset));
  if (Status opened = log_->open(settings_.log_file); !opened) {
    log_->error("log_failed", opened.error().message());
  }
  for (const std::string& damage : read->damage) {
    log_->error("snapshot_damaged", "Snapshot: " + damage);
  }
  if (Status placed = place_descriptors(); !placed) {
    return placed;
  }
  roster_ = std::make_unique<Roster>(kernel_);
  std::vector<pool::Worker> workers;
  std::vector<wire::WorkerRecord> records;
  for (auto& [epoch, record] : read->workers) {
    if (record.worker.state == pool::WorkerState::kSpawning && record.pid == 0 &&
        note.epoch == epoch.value) {
      record.pid = note.pid;  // the kernel wrote it down when the last master could not any more
    }
    workers.push_back(record.worker);
    records.push_back(record);
  }
  std::vector<pool::SlotTrouble> troubles;
  for (auto& [slot, trouble] : read->troubles) {
    troubles.push_back(std::move(trouble));
  }
  pass_used_epochs(note.epoch, descriptors_.others, read->ledger);
  pool_ = std::make_unique<pool::Pool>(read->config, std::move(read->ledger), std::move(workers),
                                       std::move(troubles));
  manager_ = std::make_unique<ServiceManager>(guard_, *pool_, public_pid_);
  journal_ = std::make_unique<Journal>(kernel_, [this](int fd) { guard_.keep("snapshot", fd); });
  start_health();
  restore_zygotes(read->zygotes);
  restore_hooks(read->hooks);
  restore_companions();
  for (const wire::WorkerRecord& record : records) {
    restore_worker(record);
  }
  remake_socket("command", settings_.socket_path, true, descriptors_.command);
  remake_socket("notify", settings_.notify_path, false, descriptors_.notify);
  server_ =
      std::make_unique<CommandServer>(kernel_, *log_, descriptors_.command,
                                      [this](Connection& connection, const wire::Request& request) {
                                        commands_.handle(*server_, connection, request);
                                      });
  adopt_connections(read->connections);
  make_event_stream(note.events);
  return Ok{};
}

// Whatever the guard keeps on behalf of processes beside us is claimed by whoever they belong to.
void Master::restore_companions() {
  const auto started = [this](Pid pid) { roster_->expect_ghost(pid); };
  if (settings_.intercept != wire::Interception::kOff) {
    interceptor_ = std::make_unique<Interceptor>(
        kernel_, guard_, *log_, settings_,
        Interceptor::Hooks{[this](WorkerId worker) { on_listening(worker, false); }, started,
                           [this](WorkerId worker) { on_listening(worker, true); },
                           [this](WorkerId worker) {
                             if (drains_) {
                               drains_->on_drained(worker);
                             }
                           },
                           [this] {
                             probe_all();
                             if (drains_) {
                               drains_->ask_again();
                             }
                           }});
    if (settings_.intercept_drain > Duration::zero()) {
      drains_ = std::make_unique<Drains>(
          *interceptor_, settings_.intercept_drain,
          Drains::Hooks{[this](WorkerId worker, int signal) { deliver_withheld(worker, signal); }});
    }
    companions_.push_back(&interceptor_->companion());
    for (const auto& [index, record] : listeners_) {
      interceptor_->share(record, descriptors_.listeners.at(index));
    }
  }
  if (!settings_.cgroup_places.empty()) {
    cgroups_ = std::make_unique<Cgroups>(kernel_, *log_, settings_);
  }
  if (settings_.capture) {
    capture_ = std::make_unique<Capture>(
        kernel_, guard_, *log_, settings_,
        Capture::Hooks{started, [this](const LastOutput& last) { tell_last_output(last); }});
    companions_.push_back(&capture_->companion());
  }
  if (!settings_.agent.empty()) {
    agent_ = std::make_unique<AgentKeeper>(kernel_, guard_, *log_, settings_, started);
    companions_.push_back(&agent_->companion());
  }
  for (const auto& [name, fd] : descriptors_.others) {
    const bool claimed = (agent_ && agent_->companion().adopt(name, fd)) ||
                         (interceptor_ && interceptor_->adopt(name, fd)) ||
                         (capture_ && capture_->adopt(name, fd)) ||
                         (zygotes_ && zygotes_->adopt(name, fd)) || hooks_->adopt(name, fd);
    if (!claimed) {
      kernel_.close(fd);
    }
  }
  descriptors_.others.clear();
}

// Said once a socket, and again to a new master.
void Master::on_listening(WorkerId worker, bool probed) {
  const pool::Worker* found = pool_->find(worker);
  if (found == nullptr || found->acked() || pool_->config().ack_mode != pool::AckMode::kListen) {
    return;
  }
  if (probed || settings_.listen_probe.empty()) {
    apply(pool::event::Acked{worker, pool::AckMode::kListen});
  } else if (const Roster::Process* process = roster_->find(worker)) {
    interceptor_->probe(worker, process->pid);
  }
}

// After the death of one that knew which of them listen.
void Master::probe_all() {
  if (settings_.listen_probe.empty()) {
    return;
  }
  for (const pool::Worker* worker : pool_->workers()) {
    const Roster::Process* process = roster_->find(worker->id);
    if (worker->state == pool::WorkerState::kStarting && process != nullptr) {
      interceptor_->probe(worker->id, process->pid);
    }
  }
}

// Somebody has deleted that socket's file: nobody can reach it any more, so another one is opened
// in its place. Clients that are connected stay so.
void Master::remake_socket(const std::string& name, const std::string& path, bool listening,
                           int& socket) {
  Result<std::optional<os::SocketMade>> made =
      kernel_.remake_socket(path, listening, settings_.socket_mode, settings_.socket_group);
  if (!made) {
    log_->error("socket_not_remade",
                path + " is gone and can't be made again: " + made.error().message());
    return;
  }
  if (!*made) {
    return;
  }
  log_->error("socket_remade", path + " was gone; it has been made again");
  kernel_.close(std::exchange(socket, (*made)->fd));
  guard_.keep(name, socket);
  for (wire::OwnFile& file : settings_.files) {
    if (file.path == path) {
      file.device = (*made)->device;
      file.inode = (*made)->inode;
    }
  }
}

// Gives the sockets numbers that no worker's socket will have, and says up to which number a spawn
// passes descriptors on.
Status Master::place_descriptors() {
  const int count = static_cast<int>(listeners_.size() + settings_.worker_binds.size());
  int least = settings_.first_descriptor + count + 1;
  keep_below_ = least;
  for (const std::int32_t inherited : settings_.inherited) {
    keep_below_ = std::max(keep_below_, inherited + 1);
  }
  for (const auto& [index, fd] : descriptors_.listeners) {
    if (!listeners_.contains(index)) {
      return make_error("start of the master",
                        "the record of listening socket " + std::to_string(index) + " is lost");
    }
  }
  std::erase_if(listeners_, [this](const auto& entry) {
    return entry.second.tentative && !descriptors_.listeners.contains(entry.first);
  });
  for (const auto& [index, record] : listeners_) {
    const auto found = descriptors_.listeners.find(index);
    if (found == descriptors_.listeners.end()) {
      return make_error("start of the master",
                        "the socket of " + record.text + " was not handed over");
    }
    Result<int> raised = kernel_.raise(found->second, least);
    if (!raised) {
      return raised.error();
    }
    found->second = *raised;
    least = *raised + 1;
    keep_below_ = std::max(keep_below_, least);
  }
  return Ok{};
}

// A living master waits whether we act, beside us or at another guard's door: from here on it does
// not go on, whatever happens to our guard.
Status Master::take_turn() {
  if (!successor_of_master_ && !settings_.guard_lost) {
    return Ok{};
  }
  Result<os::SpawnNote*> note = kernel_.map_note(descriptors_.snapshot);
  if (!note) {
    return note.error();
  }
  (*note)->taker = own_pid_;
  const bool ours = Journal::decide(**note, os::SpawnNote::kTheNewMaster);
  kernel_.unmap_note(*note);
  return ours ? Status(Ok{}) : make_error("start of the master", "the last master goes on");
}

// A worker of the snapshot: is it still there, and whose child is it?
void Master::restore_worker(const wire::WorkerRecord& record) {
  const WorkerId id = record.worker.id;
  if (pool_->find(id) == nullptr) {
    return;
  }
  if (record.pid == 0 && record.worker.hook == pool::Hook::kBeforeStart) {
    return;  // start_hooks() goes on with it
  }
  if (record.pid == 0 && record.fork_id != 0 && is_preloaded(record.worker.version)) {
    zygotes_->expect(id, record.worker.version, {record.fork_id, record.asked_of});
    return;
  }
  if (record.pid == 0) {
    events_.emplace_back(
        pool::event::SpawnFailed{id, "the master died before the worker was started"});
    return;
  }
  Roster::Process process;
  process.worker = id;
  process.pid = record.pid;
  process.pidfd = kernel_.open_process(record.pid, public_pid_).value_or(-1);
  if (process.pidfd < 0) {
    process.orphan = true;
    // Under the same guard it would still be the guard's child: the pid is somebody else's by now.
    if (record.orphan || settings_.guard_pid != public_pid_) {
      process.pidfd = kernel_.open_process(record.pid, 0).value_or(-1);
    }
  }
  if (record.worker.state == pool::WorkerState::kSpawning) {
    events_.emplace_back(pool::event::Spawned{id});
  }
  roster_->add(process);
  if (capture_) {
    capture_->knows(id, process.pid);
  }
  if (process.pidfd < 0) {
    events_.emplace_back(pool::event::Exited{id, {}});
  } else if (interceptor_ && !interceptor_->knows(id)) {
    // The last master died between starting it and handing on its filter's notify descriptor.
    log_->error("intercept_lost", "Nobody can answer what worker " + std::to_string(record.pid) +
                                      " binds; it is ended and replaced");
    kernel_.signal(process.pidfd, process.pid, SIGKILL, true);
  } else if (drains_ && record.withheld != 0) {
    drains_->withhold(id, process.pid, record.withheld,
                      record.worker.last_signaled_at.value_or(now_));
  }
}

// Whether a worker could not do with another connection in place of this one.
CommandServer::Keep Master::worth_of(const Connection& connection) const {
  using Keep = CommandServer::Keep;
  const std::optional<WorkerId> worker = roster_->find_pid(connection.peer.pid);
  if (!worker) {
    return Keep::kNo;
  }
  if (settings_.command_socket_as_fd) {
    return Keep::kAtOnce;  // it was born with this one
  }
  // It is about to say its ACK, and says it once. One such connection each, whatever it opens.
  const pool::Worker* known = pool_->find(*worker);
  const bool speaks = !connection.heard && known != nullptr && !known->acked() &&
                      std::ranges::none_of(server_->connections(), [&](const auto& entry) {
                        return entry.second.kept && !entry.second.heard &&
                               entry.second.peer.pid == connection.peer.pid;
                      });
  return speaks ? Keep::kUnlessHeard : Keep::kNo;
}

// Clients that were waiting for something when the last master stopped. Where it could not be written
// down that one is gone, its record must not become another one's.
void Master::adopt_connections(const std::map<std::uint64_t, wire::ConnectionRecord>& records) {
  for (const auto& [id, record] : records) {
    server_->pass_id(id);
    const auto fd = descriptors_.connections.find(id);
    if (fd == descriptors_.connections.end()) {
      continue;
    }
    server_->adopt(record, fd->second, now_);
    descriptors_.connections.erase(fd);
  }
  for (const auto& [id, fd] : descriptors_.connections) {
    kernel_.close(fd);
    guard_.forget(std::string(kConnectionPrefix) + std::to_string(id));
  }
  descriptors_.connections.clear();
  server_->set_chooser([this](const Connection& connection) { return worth_of(connection); });
  if (settings_.command_socket_as_fd) {
    server_->set_extra_places(pool_->alive());
  }
  server_->set_keeper([this](const Connection& connection, bool keep) {
    const std::string name = std::string(kConnectionPrefix) + std::to_string(connection.id);
    wire::ConnectionRecord record = CommandServer::record_of(connection);
    // Both will be dealt with by the time that somebody reads this after a sudden death.
    record.input.clear();
    record.output.clear();
    std::string entry;
    if (keep) {
      guard_.keep(name, connection.fd);
      entry = wire::encode_entry(record);
    } else {
      guard_.forget(name);
      entry = wire::encode_connection_gone(connection.id);
    }
    if (!journal_->append(entry)) {
      log_->error("snapshot_failed", "Can't append to the snapshot");
    }
  });
}

// An upgrade for which this master was started, or that was lost with the last one.
void Master::resume_upgrade() {
  if (settings_.pending_upgrades > 0) {
    begin_pending_upgrade();
  } else if (!pool_->ledger().upgrade && server_->has_subscribers()) {
    // It was over when the last master died, but perhaps nobody had been told.
    const std::string& failure = pool_->ledger().failure;
    server_->publish(failure.empty() ? "Upgrade done" : failure, true,
                     failure.empty() ? "ok" : "failed");
  }
}

void Master::resume() {
  ++settings_.generation;
  const bool same_guard = settings_.guard_pid == public_pid_ && !settings_.guard_lost;
  taken_over_ = settings_.guard_lost;
  settings_.guard_lost = false;
  settings_.guard_pid = public_pid_;
  if (successor_of_master_) {
    settings_.start_environment = environment_;
    if (Result<std::string> directory = kernel_.current_directory()) {
      settings_.current_directory = *directory;
    }
  }
  settings_dirty_ = true;
  if (settings_.nice_master && !renice(own_pid_, *settings_.nice_master)) {
    if (Status set = kernel_.set_nice(*settings_.nice_master); !set) {
      tell_nice_failed("the master", *settings_.nice_master, set.error());
    }
  }
  if (Status kept = journal_->rewrite(snapshot()); !kept) {
    log_->error("snapshot_failed", "Can't write the snapshot: " + kept.error().message());
  }
  if (Status started = server_->start(); !started) {
    log_->error("command_socket_failed", started.error().message());
  }
  if (Status watched = kernel_.watch(descriptors_.notify, kNotifyToken, {true, false}); !watched) {
    log_->error("notify_socket_failed", watched.error().message());
  }
  guard_.ready();
  announce_master();  // before anything that follows has its event
  take_config();
  if (manager_words_) {
    manager_->found(std::chrono::microseconds{*manager_words_});
    for (const auto& [index, fd] : descriptors_.listeners) {
      manager_->keep_listener(index, fd);
    }
  }
  if (interceptor_) {
    interceptor_->start(now_, keep_below_, successor_of_master_);
  }
  start_zygotes(same_guard);
  start_hooks(same_guard);
  if (capture_) {
    capture_->start(now_, keep_below_, successor_of_master_);
  }
  if (agent_) {
    agent_->companion().start(now_, keep_below_, successor_of_master_);
  }
  if (cgroups_) {
    std::set<Epoch> alive;
    for (const pool::Worker* worker : pool_->workers()) {
      const Roster::Process* process = roster_->find(worker->id);
      if (process != nullptr && process->pidfd >= 0) {
        alive.insert(worker->id.epoch);
      }
    }
    cgroups_->start(alive, now_);
  }
  if (successor_of_master_) {
    if (const auto program = kernel_.own_program_unless(public_pid_)) {
      log_->info("renewing_guard",
                 "Einhorn's program has changed; the guard is replaced in its place");
      guard_.renew(*program, 1);
      guard_.flush();
      if (!guard_.blocked()) {
        kernel_.close(*program);
      }
    }
  }
  if (!settings_.started) {
    settings_.started = true;
    events_.push_front(pool::event::Started{});
  } else {
    log_->info("master_started", "A new master goes on (pid " + std::to_string(own_pid_) +
                                     ", the " + std::to_string(settings_.generation) +
                                     ". of this pool) with " + std::to_string(pool_->alive()) +
                                     " workers");
    events_.emplace_back(pool::event::TimerDue{});  // whatever is due, also leaving
  }
  drain_events();
  if (!exit_code_) {
    resume_upgrade();
    drain_events();
  }
  tell_manager();
}

}  // namespace einhorn::master
