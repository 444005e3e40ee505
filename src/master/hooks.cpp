// Hooks: what the pool's steps and the commands around them are to each other (docs/hooks.md).
//
// The pool asks for those before a start and a stop signal, and waits for their ends. The one before
// an upgrade is run by the master that would begin it: the upgrade stays pending until it is over.
// All others follow from what is noted.
#include <algorithm>

#include "master/master.h"
#include "master/worker_program.h"

namespace einhorn::master {

using pool::Hook;

void Master::restore_hooks(const std::map<std::uint64_t, wire::HookRecord>& records) {
  HookRunner::Hooks hooks;
  hooks.spec = [this](const wire::HookRecord& record) { return hook_spec(record); };
  hooks.note = [this](const std::string& entry) {
    if (!journal_->append(entry)) {
      log_->error("snapshot_failed", "Can't append to the snapshot");
    }
  };
  hooks.ended = [this](const HookRunner::Ended& ended) { on_hook_ended(ended); };
  hooks.ghost = [this](Pid pid) {
    roster_->expect_ghost(pid);
    guard_.ask_for(pid);
  };
  hooks_ = std::make_unique<HookRunner>(kernel_, guard_, *log_, settings_, std::move(hooks));
  for (const auto& [number, record] : records) {
    hooks_->adopt(record);
  }
}

// Those that the last master had begun, and those that it could not begin any more.
void Master::start_hooks(bool same_guard) {
  hooks_->start(now_, keep_below_, public_pid_, same_guard);
  for (const pool::Worker* worker : pool_->workers()) {
    const Roster::Process* process = roster_->find(worker->id);
    const bool dead = process != nullptr && process->pidfd < 0;
    if (worker->hook != Hook::kNone && !dead && !hooks_->has(worker->hook, worker->id)) {
      run_hook(worker->hook, worker->id, worker->version, {});
    }
  }
}

// As the master's user, where the version's code lies.
Result<os::SpawnSpec> Master::hook_spec(const wire::HookRecord& record) {
  std::string directory = settings_.current_directory;
  if (record.hook == Hook::kBeforeUpgrade) {
    Result<wire::Program> next = record_program(record.version);
    if (!next) {
      return next.error();
    }
    directory = next->directory;
  } else if (const auto found = programs_.find(record.version); found != programs_.end()) {
    directory = found->second.directory;
  }
  if (!settings_.privileges.root.empty()) {
    directory = settings_.privileges.root + "/" + directory;
  }
  os::SpawnSpec spec;
  spec.arguments = settings_.hook(record.hook);
  if (spec.arguments.empty()) {
    return make_error("there is no such hook any more", "");
  }
  for (const std::string& variable : settings_.start_environment) {
    const std::string name = variable.substr(0, variable.find('=') + 1);
    const bool given = std::ranges::any_of(
        settings_.variables, [&](const std::string& own) { return own.starts_with(name); });
    if (!is_workers_own(variable) && !given) {
      spec.environment.push_back(variable);
    }
  }
  spec.environment.insert(spec.environment.end(), settings_.variables.begin(),
                          settings_.variables.end());
  const Pid parent = guard_.socket() >= 0 ? public_pid_ : own_pid_;
  spec.environment.push_back("EINHORN_MASTER_PID=" + std::to_string(parent));
  spec.environment.push_back("EINHORN_SOCK_PATH=" + settings_.socket_path);
  Result<std::string> program =
      kernel_.find_program(spec.arguments.front(), search_path(spec.environment), directory);
  if (!program) {
    return program.error();
  }
  spec.program = *program;
  spec.directory = directory;
  return spec;
}

void Master::run_hook(Hook hook, WorkerId worker, Version version,
                      std::vector<std::string> variables) {
  if (!settings_.hook(hook).empty()) {
    variables.push_back("EINHORN_HOOK=" + std::string(name(hook)));
    variables.push_back("EINHORN_HOOK_VERSION=" + std::to_string(version.value));
    if (worker.epoch.value != 0) {
      variables.push_back("EINHORN_HOOK_INDEX=" + std::to_string(worker.slot.value));
      if (const Pid pid = roster_->pid_of(worker); pid != 0) {
        variables.push_back("EINHORN_HOOK_PID=" + std::to_string(pid));
      }
    }
  }
  hooks_->run(hook, worker, version, std::move(variables), now_);
}

void Master::run_hooks_after(const pool::Note& note) {
  const auto after_upgrade = [this](Version version, const char* result) {
    run_hook(Hook::kAfterUpgrade, {}, version, {std::string("EINHORN_HOOK_RESULT=") + result});
  };
  if (const auto* acked = std::get_if<pool::note::Acked>(&note)) {
    if (const pool::Worker* worker = pool_->find(acked->worker)) {
      run_hook(Hook::kAfterAck, worker->id, worker->version, {});
    }
  } else if (const auto* exited = std::get_if<pool::note::Exited>(&note)) {
    std::vector<std::string> how;
    switch (exited->status.kind) {
      case pool::ExitStatus::Kind::kExited:
        how.push_back("EINHORN_HOOK_STATUS=" + std::to_string(exited->status.value));
        break;
      case pool::ExitStatus::Kind::kSignaled:
        how.push_back("EINHORN_HOOK_SIGNAL=" + signal_name(exited->status.value));
        break;
      case pool::ExitStatus::Kind::kUnknown:
        break;
    }
    run_hook(Hook::kAfterExit, exited->worker, exited->version, std::move(how));
  } else if (const auto* upgraded = std::get_if<pool::note::Upgraded>(&note)) {
    after_upgrade(upgraded->version, "ok");
  } else if (const auto* back = std::get_if<pool::note::RolledBack>(&note)) {
    after_upgrade(back->version, "rolled-back");
  } else if (const auto* incomplete = std::get_if<pool::note::RollBackIncomplete>(&note)) {
    after_upgrade(incomplete->version, "failed");
  } else if (std::holds_alternative<pool::note::Stopping>(note) && settings_.pending_upgrades > 0) {
    settings_.pending_upgrades = 0;
    settings_dirty_ = true;
    hooks_->give_up(Hook::kBeforeUpgrade, {}, now_);
  }
}

void Master::on_hook_ended(const HookRunner::Ended& ended) {
  if (!settings_.hook(ended.hook).empty()) {
    events_out_->add("hook_ended", [&](wire::EventFields& fields) {
      fields.field("hook", name(ended.hook)).field("version", ended.version.value);
      if (ended.worker.epoch.value != 0) {
        fields.worker(ended.worker);
      }
      fields.field("ok", ended.well).field("seconds", ended.ran);
      fields.unless_empty("reason", ended.reason);
    });
  }
  switch (ended.hook) {
    case Hook::kBeforeStart:
    case Hook::kBeforeStop: {
      std::string reason = "its " + std::string(name(ended.hook)) + " hook " + ended.reason;
      if (!ended.last.empty()) {
        reason += ": " + ended.last.back();
      }
      apply(pool::event::HookEnded{ended.worker, ended.well, std::move(reason)});
      return;
    }
    case Hook::kBeforeUpgrade:
      if (settings_.pending_upgrades == 0) {
        log_->info("hook_done", "Nobody waits for that upgrade any more");
      } else if (ended.well) {
        finish_pending_upgrade();
      } else {
        refuse_pending_upgrade(ended);
      }
      persist();
      return;
    case Hook::kNone:
    case Hook::kAfterAck:
    case Hook::kAfterExit:
    case Hook::kAfterUpgrade:
      return;
  }
}

// Behind its hook, if there is one.
void Master::begin_pending_upgrade() {
  if (hooks_->has(Hook::kBeforeUpgrade, {})) {
    return;  // its end goes on with it
  }
  if (settings_.hook(Hook::kBeforeUpgrade).empty()) {
    finish_pending_upgrade();
    return;
  }
  const Version next{pool_->ledger().newest.value + 1};
  const std::string from = std::to_string(pool_->ledger().version.value);
  run_hook(Hook::kBeforeUpgrade, {}, next, {"EINHORN_HOOK_FROM_VERSION=" + from});
}

// One, however many were asked for meanwhile: each began a version, and its workers, anew.
void Master::finish_pending_upgrade() {
  const Status begun = upgrade_pool(settings_.pending_smooth, settings_.pending_rollback);
  settings_.pending_upgrades = 0;
  settings_dirty_ = true;
  if (!begun) {
    log_->error("upgrade_not_started", "Could not start the upgrade: " + begun.error().message());
    server_->publish("Could not start the upgrade: " + begun.error().message(), true,
                     "could_not_start");
  }
}

void Master::refuse_pending_upgrade(const HookRunner::Ended& ended) {
  settings_.pending_upgrades = 0;
  settings_dirty_ = true;
  std::string text = "Could not start the upgrade: its before-upgrade hook " + ended.reason;
  log_->error("upgrade_not_started", text);
  for (const std::string& line : ended.last) {
    text += "\n  " + line;
  }
  server_->publish(text, true, "could_not_start");
}

}  // namespace einhorn::master
