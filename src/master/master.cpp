#include "master/master.h"

#include <algorithm>
#include <array>
#include <csignal>

#include "master/exit_status.h"
#include "master/preload.h"
#include "master/report.h"
#include "master/worker_program.h"
#include "wire/notification.h"

namespace einhorn::master {
namespace {

constexpr std::uint64_t kKindMask = ~((std::uint64_t{1} << 40U) - 1);
constexpr int kMaxMessagesPerTurn = 256;
constexpr std::int64_t kWallStep = 1'000'000'000;  // a wall clock that jumped by this was set

}  // namespace

std::string Master::title() const {
  if (!settings_.name.empty()) {
    return settings_.name;
  }
  std::string title;
  for (const std::string& word : settings_.original_command) {
    title += (title.empty() ? "" : " ") + word;
  }
  return title;
}

bool Master::turn() {
  if (exit_code_) {
    return false;
  }
  if (successor_ >= 0) {
    return frozen_turn();
  }
  if (handoff_.stage == Handoff::Stage::kFrozen) {
    return handoff_turn();
  }
  std::array<os::Ready, 64> ready;
  const std::size_t count = kernel_.wait(ready, next_deadline());
  now_ = kernel_.now();
  check_wall_clock();
  log_->set_time(to_wall(now_, settings_.wall_offset));
  events_out_->set_time(now_, to_wall(now_, settings_.wall_offset));
  // The guard first: it may say how a worker ended whose death is among the rest.
  const auto end = ready.begin() + static_cast<std::ptrdiff_t>(count);
  std::stable_sort(ready.begin(), end, [](const os::Ready& left, const os::Ready& right) {
    return (left.token == kControlToken) > (right.token == kControlToken);
  });
  for (auto it = ready.begin(); it != end && acting(); ++it) {
    on_ready(*it);
  }
  if (successor_ >= 0 || handoff_.stage == Handoff::Stage::kFrozen) {
    return true;
  }
  if (handoff_.stage != Handoff::Stage::kNone && now_ >= handoff_.deadline) {
    on_handoff_deadline();
  }
  if (!exit_code_) {
    examiner_->turn(now_);
  }
  if (!exit_code_) {
    const std::optional<Instant> due = pool_->next_deadline();
    if (due && *due <= now_) {
      apply(pool::event::TimerDue{});
    }
  }
  for (Companion* companion : companions_) {
    if (!exit_code_) {
      companion->turn(now_);
    }
  }
  if (!exit_code_ && cgroups_) {
    cgroups_->turn(now_);
  }
  if (!exit_code_ && capture_) {
    capture_->turn(now_);
    if (!capture_->asking()) {
      publish_what_waited();
    }
  }
  if (!exit_code_) {
    hooks_->turn(now_);
  }
  if (!exit_code_) {
    leave_when_written();
    if (exit_code_) {
      leave(*exit_code_);
    }
  }
  if (!exit_code_ && drains_) {
    drains_->turn(now_);
  }
  if (!exit_code_ && zygotes_) {
    zygotes_->turn(now_);
  }
  if (!exit_code_) {
    if (auto seen = load_watch_.look(*pool_, *roster_, descriptors_.listeners, now_)) {
      apply(*seen);
    }
  }
  if (!exit_code_) {
    events_out_->turn();
    server_->continue_waiting(now_);
  }
  if (!exit_code_) {
    close_drained_sockets();
  }
  tell_manager();
  watch_guard();
  return !exit_code_;
}

void Master::tell_manager() {
  if (!exit_code_ && guard_.socket() >= 0) {
    const bool handing_off =
        handoff_.stage != Handoff::Stage::kNone || settings_.pending_upgrades > 0;
    manager_->turn(handing_off, now_);
  }
}

// Messages to the guard that found no room go out when there is some.
void Master::watch_guard() {
  if (guard_.socket() >= 0 && guard_.blocked() != guard_watched_for_room_) {
    guard_watched_for_room_ = guard_.blocked();
    static_cast<void>(
        kernel_.watch(guard_.socket(), kControlToken, {true, guard_watched_for_room_}).has_value());
  }
}

std::optional<Instant> Master::next_deadline() {
  std::optional<Instant> next = pool_->next_deadline();
  const std::optional<Instant> server = server_->next_deadline(now_);
  if (server && (!next || *server < *next)) {
    next = server;
  }
  for (const Companion* companion : companions_) {
    const std::optional<Instant> due = companion->next_deadline();
    if (due && (!next || *due < *next)) {
      next = due;
    }
  }
  for (const std::optional<Instant>& due : {capture_ ? capture_->next_deadline() : std::nullopt,
                                            cgroups_ ? cgroups_->next_deadline() : std::nullopt}) {
    if (due && (!next || *due < *next)) {
      next = due;
    }
  }
  const std::optional<Instant> drain = drains_ ? drains_->next_deadline() : std::nullopt;
  if (drain && (!next || *drain < *next)) {
    next = drain;
  }
  const std::optional<Instant> hook = hooks_->next_deadline();
  if (hook && (!next || *hook < *next)) {
    next = hook;
  }
  const std::optional<Instant> load = load_watch_.next_deadline(*pool_);
  if (load && (!next || *load < *next)) {
    next = load;
  }
  const std::optional<Instant> examined = examiner_->next_deadline();
  if (examined && (!next || *examined < *next)) {
    next = examined;
  }
  const std::optional<Instant> events = events_out_->next_deadline();
  if (events && (!next || *events < *next)) {
    next = events;
  }
  const std::optional<Instant> zygotes = zygotes_ ? zygotes_->next_deadline() : std::nullopt;
  if (zygotes && (!next || *zygotes < *next)) {
    next = zygotes;
  }
  if (handoff_.stage != Handoff::Stage::kNone && (!next || handoff_.deadline < *next)) {
    next = handoff_.deadline;
  }
  const std::optional<Instant> manager =
      guard_.socket() >= 0 ? manager_->next_deadline() : std::nullopt;
  if (manager && (!next || *manager < *next)) {
    next = manager;
  }
  return next;
}

// A wall clock that was set makes every time we show wrong; slow drift is left alone, so that a
// time shown twice reads the same.
void Master::check_wall_clock() {
  const WallOffset current = kernel_.wall_offset();
  const std::int64_t step = current.nanoseconds - settings_.wall_offset.nanoseconds;
  if (step > kWallStep || step < -kWallStep) {
    settings_.wall_offset = current;
    settings_dirty_ = true;
  }
}

void Master::on_ready(const os::Ready& ready) {
  const std::uint64_t low = ready.token & ~kKindMask;
  switch (ready.token & kKindMask) {
    case CommandServer::kListenerToken:
      server_->on_listener(now_);
      return;
    case CommandServer::kConnectionToken:
      server_->on_connection(low, ready, now_);
      return;
    case Roster::kWorkerToken:
      on_worker_dead(static_cast<std::uint32_t>(low));
      return;
    case HookRunner::kOutputToken:
      hooks_->on_output(low);
      return;
    case HookRunner::kDeathToken:
      hooks_->on_death(low, now_);
      return;
    case Zygotes::kSocketToken:
      if (zygotes_) {
        zygotes_->on_socket(low, ready, now_);
      }
      return;
    case Zygotes::kDeathToken:
      if (zygotes_) {
        zygotes_->on_death(low, now_);
      }
      return;
    default:
      break;
  }
  for (Companion* companion : companions_) {
    if (ready.token == companion->token()) {
      companion->on_ready(ready, now_);
      return;
    }
  }
  if (ready.token == Prober::kToken) {
    if (prober_) {
      prober_->on_ready();
    }
    return;
  }
  if (ready.token == kControlToken) {
    if (ready.writable) {
      guard_.flush();
    }
    on_guard();
  } else if (ready.token == kNotifyToken) {
    on_worker_message();
  }
}

void Master::on_guard() {
  for (int i = 0; i < kMaxMessagesPerTurn && !exit_code_ && !left_; ++i) {
    const std::optional<GuardSays> said = guard_.next();
    if (!said) {
      break;
    }
    if (std::holds_alternative<Freeze>(*said)) {
      freeze();
      continue;
    }
    if (std::holds_alternative<Thaw>(*said)) {
      unfreeze();
      continue;
    }
    if (std::holds_alternative<LeaveNow>(*said)) {
      left_ = true;
      return;
    }
    if (const auto* signal = std::get_if<GuardSignal>(&*said)) {
      on_guard_signal(signal->signal);
      guard_.signal_done(signal->signal);
    } else if (const auto* ended = std::get_if<ChildEnded>(&*said)) {
      on_child_ended(ended->pid, ended->how);
    } else if (const auto* kept = std::get_if<Kept>(&*said)) {
      for (const auto& [name, fd] : kept->fds) {
        kernel_.close(fd);
      }
    } else if (std::holds_alternative<GuardGone>(*said)) {
      on_guard_gone();
      return;
    }
  }
}

void Master::on_guard_gone() {
  settings_.guard_lost = true;
  settings_dirty_ = true;
  if (handoff_.stage == Handoff::Stage::kFrozen && successor_acts()) {
    log_->info("handed_over", "The guard died while the new master took over; this one leaves");
    left_ = true;
    return;
  }
  if (handoff_.stage != Handoff::Stage::kNone) {
    // Without a guard there is nobody to hand on through.
    kernel_.signal(handoff_.pidfd, handoff_.pid, SIGKILL, false);
    fail_handoff("the guard is gone");
  }
  public_pid_ = own_pid_;
  events_out_->add("guard_lost", [](wire::EventFields& /*fields*/) {});
  log_->set_pid(own_pid_);
  log_->error("guard_lost",
              "The guard is gone. Workers and sockets stay; start einhorn again with the same "
              "command line to take the pool over.");
  for (const pool::Worker* worker : pool_->workers()) {
    if (Roster::Process* process = roster_->find(worker->id)) {
      process->orphan = true;
    }
  }
  if (zygotes_) {
    zygotes_->on_guard_lost(now_);
  }
  hooks_->on_guard_lost();
  if (settings_.kill_children_on_exit) {
    // The kernel has sent the workers their signal at the guard's death.
    apply(pool::event::Stop{pool_->config().stop_signal, true});
  } else {
    drain_events();
  }
}

void Master::on_guard_signal(int signal) {
  events_out_->add("signal_received",
                   [signal](wire::EventFields& fields) { fields.signal("signal", signal); });
  const int stop = pool_->config().stop_signal;
  switch (signal) {
    case SIGINT:
    case SIGUSR2:
      apply(pool::event::Stop{stop, false});
      return;
    case SIGTERM:
      apply(pool::event::Stop{SIGTERM, false});
      return;
    case SIGQUIT:
      hurried_ = leaving_.has_value();
      apply(pool::event::Quit{SIGQUIT});
      return;
    case SIGHUP:
    case SIGALRM:
      if (!pool_->ledger().respawn) {
        log_->info("not_upgrading", "Not reloading einhorn because we're exiting");
      } else if (Status begun = begin_upgrade(true, true); !begun) {
        log_->error("upgrade_not_started",
                    "Could not start the upgrade: " + begun.error().message());
      }
      return;
    case SIGUSR1:
      if (capture_) {
        capture_->reopen();
      }
      if (Status opened = log_->open(settings_.log_file); !opened) {
        log_->error("log_failed", "Can't reopen the log: " + opened.error().message());
      } else {
        log_->info("log_reopened", "Reopened the log");
      }
      return;
    case SIGTTIN:
    case SIGTTOU:
      commands_.change_number(signal == SIGTTIN);
      return;
    default:
      log_->debug("Nothing to do on signal " + std::to_string(signal));
  }
}

void Master::on_child_ended(Pid pid, os::Ended how) {
  if (roster_->forget_ghost(pid) || on_handoff_child(pid, how) ||
      examiner_->on_child_ended(pid, how, now_) || hooks_->on_ended(pid, how, now_)) {
    return;
  }
  if (renicers_.erase(pid) > 0) {
    if (how.status != 0) {
      log_->error("renice_failed",
                  "Renice command " + describe(exit_status(how)) + ", but continuing on anyway.");
    }
    return;
  }
  std::optional<WorkerId> worker = roster_->find_pid(pid);
  if (!worker && zygotes_) {
    if (zygotes_->on_ended(pid, how, now_)) {
      return;
    }
    zygotes_->hear_all(now_);  // it may have been forked just now
    worker = roster_->find_pid(pid);
  }
  if (!worker) {
    log_->debug("Reaped process " + std::to_string(pid) + ", which is no worker");
    return;
  }
  exited(*worker, exit_status(how));
}

void Master::exited(WorkerId worker, pool::ExitStatus status) {
  if (cgroups_ && cgroups_->ended(worker, now_)) {
    status.out_of_memory =
        status.kind == pool::ExitStatus::Kind::kSignaled && status.value == SIGKILL;
    if (!status.out_of_memory) {
      log_->error("out_of_memory", "A process of worker " + std::to_string(pid_of_(worker)) +
                                       " was killed for want of memory");
    }
  }
  apply(pool::event::Exited{worker, status});
}

// A pidfd says that a worker is dead; how it ended only its parent can learn.
void Master::on_worker_dead(std::uint32_t slot) {
  Roster::Process* process = roster_->find_slot(slot);
  if (process == nullptr || process->reported || !kernel_.is_dead(process->pidfd)) {
    return;
  }
  if (process->own) {
    if (const auto how = kernel_.reap(process->pid)) {
      exited(process->worker, exit_status(*how));
    }
    return;
  }
  if (process->orphan || guard_.socket() < 0) {
    exited(process->worker, {});
    return;
  }
  process->reported = true;
  kernel_.unwatch(process->pidfd);
  guard_.ask_for(process->pid);
}

void Master::on_worker_message() {
  for (int i = 0; i < kMaxMessagesPerTurn; ++i) {
    os::Message message = kernel_.receive(descriptors_.notify);
    if (message.kind != os::Transfer::Kind::kDone) {
      return;
    }
    for (const int fd : message.fds) {
      kernel_.close(fd);
    }
    std::optional<WorkerId> worker = roster_->worker_of(message.sender);
    if (!worker && zygotes_) {
      zygotes_->hear_all(now_);
      worker = roster_->worker_of(message.sender);
    }
    if (worker) {
      take_worker_message(*worker, message.text);
    } else {
      log_->debug("A notification from process " + std::to_string(message.sender.pid) +
                  ", which belongs to no worker");
    }
  }
}

void Master::take_worker_message(WorkerId worker, std::string_view text) {
  const wire::Notification said = wire::parse_notification(text);
  if (said.ready && pool_->config().ack_mode == pool::AckMode::kNotify) {
    apply(pool::event::Acked{worker, pool::AckMode::kNotify});
  }
  if (said.alive || said.hung) {
    apply(pool::event::Pinged{worker, "null", std::nullopt, said.hung});
  }
  if (said.status) {
    apply(pool::event::StatusSaid{worker, *said.status});
  }
}

std::optional<WorkerId> Master::sender(const os::Peer& peer, Pid claimed) {
  if (zygotes_ && !roster_->find_pid(claimed)) {
    zygotes_->hear_all(now_);
  }
  const std::optional<WorkerId> named = roster_->find_pid(claimed);
  if (!named) {
    return std::nullopt;
  }
  const std::optional<WorkerId> from = roster_->worker_of(peer);
  if (from == named) {
    return named;
  }
  // A helper that a worker ran for this may be gone already, with its ancestry. Then the user
  // counts.
  const bool vanished = kernel_.parent_of(peer.pid) == 0;
  if (!from && vanished &&
      (peer.uid == 0 || peer.uid == kernel_.own_uid() || peer.uid == settings_.privileges.uid)) {
    return named;
  }
  return std::nullopt;
}

void Master::ack(const os::Peer& peer, Pid pid) {
  if (const auto worker = sender(peer, pid)) {
    apply(pool::event::Acked{*worker, pool::AckMode::kManual});
    return;
  }
  if (!roster_->find_pid(pid)) {
    log_->error("ack_refused",
                "Could not find state for PID " + std::to_string(pid) + "; ignoring ACK.");
    return;
  }
  log_->error("ack_refused", "Process " + std::to_string(peer.pid) + " (user " +
                                 std::to_string(peer.uid) + ") tried to ACK for worker " +
                                 std::to_string(pid) +
                                 " but is neither it nor its descendant; ignoring ACK.");
}

void Master::ping(const os::Peer& peer, Pid pid, WorkerPing said) {
  if (const auto worker = sender(peer, pid)) {
    apply(pool::event::Pinged{*worker, std::move(said.request_id), said.busy});
    return;
  }
  log_->error("ping_refused", "Process " + std::to_string(peer.pid) + " sent a ping for PID " +
                                  std::to_string(pid) + ", which is not its worker; ignoring it.");
}

void Master::set_verbosity(std::int32_t verbosity) {
  settings_.verbosity = verbosity;
  log_->set_verbosity(verbosity);
  settings_dirty_ = true;
  persist();
}

std::vector<Pid> Master::worker_pids() const {
  std::vector<Pid> pids;
  for (const pool::Worker* worker : pool_->workers()) {
    if (const Pid pid = roster_->pid_of(worker->id); pid != 0) {
      pids.push_back(pid);
    }
  }
  return pids;
}

std::vector<Pid> Master::signal_all(int signal) {
  std::vector<Pid> pids = worker_pids();
  apply(pool::event::SignalAll{signal});
  return pids;
}

std::string Master::report(std::string_view kind) {
  const auto memory = [this](Pid pid) {
    const auto use = pid != 0 ? kernel_.memory_of(pid) : std::nullopt;
    return use ? std::optional<std::uint64_t>(use->resident_bytes) : std::nullopt;
  };
  const Pid guard = guard_.socket() >= 0 ? public_pid_ : 0;
  ReportInput input{*pool_,
                    settings_,
                    programs_,
                    listeners_,
                    guard,
                    own_pid_,
                    memory(guard).value_or(0),
                    memory(own_pid_).value_or(0),
                    now_,
                    pid_of_,
                    memory,
                    capture_.get(),
                    examiner_->casualties(),
                    [this](std::uint32_t index) {
                      const auto found = descriptors_.listeners.find(index);
                      return found == descriptors_.listeners.end()
                                 ? std::nullopt
                                 : kernel_.accept_queue(found->second);
                    }};
  if (zygotes_) {
    add_zygotes(input);
  }
  if (kind == "json") {
    return state_json(input);
  }
  if (kind == "status") {
    return status_text(input);
  }
  return state_yaml(input);
}

// The program as it is now; srv: in its arguments are the sockets that the pool began with.
Result<wire::Program> Master::record_program(Version version) {
  Result<wire::Program> program = find_worker_program(
      kernel_, settings_, settings_.start_environment, settings_.current_directory);
  if (!program) {
    return program.error();
  }
  program->version = version;
  for (std::size_t i = 1; i < program->arguments.size(); ++i) {
    if (const auto srv = os::find_srv_argument(program->arguments[i])) {
      for (const auto& [index, listener] : listeners_) {
        if (listener.from_argument && listener.text == srv->spec) {
          program->arguments[i] =
              srv->prefix + std::to_string(settings_.first_descriptor + static_cast<int>(index));
          break;
        }
      }
    }
  }
  return program;
}

Status Master::upgrade_pool(bool smooth, bool rollback) {
  const Version next{pool_->ledger().newest.value + 1};
  Result<wire::Program> program = record_program(next);
  if (!program) {
    return program.error();
  }
  // Recorded before the pool may ask for it.
  if (Status kept = journal_->append(wire::encode_entry(*program)); !kept) {
    return kept;
  }
  programs_[next] = std::move(*program);
  apply(pool::event::Upgrade{smooth, rollback});
  forget_programs();  // of one that starts over again and again nothing remains
  return Ok{};
}

}  // namespace einhorn::master
