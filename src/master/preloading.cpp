// The master's side of preloading: what zygotes are started with, and what comes of their forks.
#include <algorithm>
#include <csignal>

#include "master/master.h"
#include "master/preload.h"
#include "master/privileges.h"
#include "master/probe_target.h"

namespace einhorn::master {

using pool::event::Blame;

bool Master::is_preloaded(Version version) const {
  const auto program = programs_.find(version);
  return zygotes_ && program != programs_.end() && !program->second.zygote.empty() &&
         !program->second.postload;
}

void Master::restore_zygotes(const std::map<std::uint64_t, wire::ZygoteRecord>& records) {
  if (settings_.preloads()) {
    zygotes_ = std::make_unique<Zygotes>(kernel_, guard_, *log_, settings_, zygote_hooks());
    for (const auto& [key, record] : records) {
      zygotes_->adopt(record);
    }
  }
}

Zygotes::Hooks Master::zygote_hooks() {
  Zygotes::Hooks hooks;
  hooks.spec = [this](Version version) { return zygote_spec(version); };
  hooks.variables = [this](WorkerId worker) { return variables_of(worker); };
  hooks.note = [this](const std::string& entry) {
    if (!journal_->append(entry)) {
      log_->error("snapshot_failed", "Can't append to the snapshot");
    }
  };
  hooks.note_worker = [this](WorkerId worker) { note_worker(worker); };
  hooks.wanted = [this](WorkerId id) {
    const pool::Worker* worker = pool_->find(id);
    return worker != nullptr && worker->state == pool::WorkerState::kSpawning &&
           !worker->stop_wanted;
  };
  hooks.knows = [this](Pid pid) { return roster_->find_pid(pid).has_value(); };
  hooks.needed = [this] { return versions_to_preload(); };
  hooks.current = [this](Version version) {
    const pool::Ledger& ledger = pool_->ledger();
    return is_preloaded(version) && ledger.respawn &&
           (version == ledger.version || (ledger.upgrade && version == ledger.upgrade->from));
  };
  hooks.forked = [this](WorkerId worker, Pid pid, bool foreign) {
    return on_forked(worker, pid, foreign);
  };
  hooks.lost = [this](WorkerId worker) {
    const Roster::Process* process = roster_->find(worker);
    if (process != nullptr && process->pidfd < 0) {
      exited(worker, {});
    }
  };
  hooks.failed = [this](WorkerId worker, const std::string& reason, Blame blame) {
    apply(pool::event::SpawnFailed{worker, reason, blame});
  };
  hooks.fall_back = [this](Version version) { return fall_back(version); };
  hooks.execute = [this](WorkerId worker, Version version) {
    spawn(pool::Spawn{worker, version});
    drain_events();
  };
  hooks.told = [this](const Zygotes::Happening& happening) {
    events_out_->add(happening.event, [&](wire::EventFields& fields) {
      fields.field("version", happening.version);
      if (happening.pid != 0) {
        fields.field("pid", happening.pid);
      }
      if (!happening.reason.empty()) {
        fields.field("reason", happening.reason);
      }
      if (happening.took) {
        fields.field("after", *happening.took);
      }
    });
  };
  return hooks;
}

void Master::start_zygotes(bool same_guard) {
  if (zygotes_) {
    zygotes_->start(now_, {keep_below_, public_pid_, same_guard,
                           settings_.kill_children_on_exit ? pool_->config().stop_signal : 0});
  }
}

std::set<Version> Master::versions_to_preload() const {
  const pool::Ledger& ledger = pool_->ledger();
  std::set<Version> versions;
  if (!ledger.respawn) {
    return versions;
  }
  versions.insert(ledger.version);
  if (ledger.upgrade) {
    versions.insert(ledger.upgrade->from);
    versions.insert(ledger.upgrade->to);
  }
  for (const pool::Worker* worker : pool_->workers()) {
    versions.insert(worker->version);
  }
  return versions;
}

// A worker's, as far as it is the same for all of them.
os::SpawnSpec Master::zygote_spec(Version version) {
  const wire::Program& program = programs_.at(version);
  os::SpawnSpec spec = spawn_spec(pool::Spawn{WorkerId{}, version}, program, {});
  spec.arguments = zygote_words(settings_, program, spec.arguments);
  spec.program = program.zygote;
  std::erase_if(spec.environment, [](const std::string& variable) {
    return variable.starts_with("EINHORN_CHILD_INDEX=") ||
           variable.starts_with("EINHORN_SOCK_FD=") ||
           variable.starts_with("EINHORN_PROBE_ADDRESS=");
  });
  if (settings_.gc_before_fork) {
    spec.environment.emplace_back("EINHORN_GC_BEFORE_FORK=1");
  }
  if (settings_.privileges.cpu_sets.size() > 1) {
    spec.identity.cpus.clear();  // each worker has its own
  }
  spec.pid_variable.clear();
  spec.connect_to.clear();
  spec.parent_death_signal = 0;
  spec.note = nullptr;
  return spec;
}

// What is not the same for all workers.
std::vector<std::string> Master::variables_of(WorkerId worker) {
  std::vector<std::string> variables = {"EINHORN_CHILD_INDEX=" + std::to_string(worker.slot.value)};
  if (const std::string address = fill_pattern(settings_.probe_address, worker.slot, 0);
      !address.empty() && address.find("{pid}") == std::string::npos) {
    variables.push_back("EINHORN_PROBE_ADDRESS=" + address);
  }
  return variables;
}

// False: it is gone already, and the guard's word on how it ended is still to come.
bool Master::on_forked(WorkerId worker, Pid pid, bool foreign) {
  Roster::Process process;
  process.worker = worker;
  process.pid = pid;
  process.orphan = foreign || guard_.socket() < 0;
  process.pidfd = kernel_.open_process(pid, process.orphan ? 0 : public_pid_).value_or(-1);
  if (process.pidfd < 0 && !process.orphan) {
    const std::optional<int> other = kernel_.open_process(pid, 0);
    const bool lives = other && !kernel_.is_dead(*other);
    if (lives) {
      kernel_.signal(*other, pid, SIGKILL, false);
    }
    if (other) {
      kernel_.close(*other);
    }
    if (lives) {
      apply(pool::event::SpawnFailed{
          worker,
          "was forked as a child of process " + std::to_string(kernel_.parent_of(pid)) +
              " and not of Einhorn: a zygote forks twice, and the worker waits until the process "
              "in between is gone",
          Blame::kWorker});
      return true;
    }
  }
  roster_->add(process);
  if (settings_.command_socket_as_fd) {
    server_->set_extra_places(roster_->size());
  }
  note_worker(worker);
  server_->choose_again(pid);  // it may have connected before it said that it is there
  if (settings_.nice_worker && has_renice_command()) {
    renice(pid, *settings_.nice_worker);
  }
  if (settings_.privileges.cpu_sets.size() > 1) {
    const os::Identity identity = worker_identity(settings_.privileges, worker.slot);
    if (Status set = kernel_.set_affinity(pid, identity.cpus); !set && process.pidfd >= 0) {
      log_->error("identity_unmet", "Worker " + std::to_string(pid) +
                                        " goes on without it: " + set.error().message());
    }
  }
  apply(pool::event::Spawned{worker, true});
  return process.pidfd >= 0;
}

void Master::add_zygotes(ReportInput& input) {
  shares_.begin();
  input.shares_of = [this](Pid pid) { return shares_.of(pid); };
  for (const Zygotes::View& view : zygotes_->views()) {
    input.zygotes.push_back({view.version, view.pid, view.loaded, view.status});
  }
}

bool Master::fall_back(Version version) {
  const auto program = programs_.find(version);
  if (program == programs_.end()) {
    return false;
  }
  program->second.postload = true;
  if (!journal_->append(wire::encode_entry(program->second))) {
    log_->error("snapshot_failed", "Can't append to the snapshot");
  }
  return true;
}

}  // namespace einhorn::master
