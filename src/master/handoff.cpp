// Handing on to a new master: every upgrade and every reload starts one beside this one.
//
//   checking   `PROGRAM --upgrade-check -- ...` has to exit with 0 within its time
//   booting    `PROGRAM --with-state-fd N -- ...` has to say that it is up
//   frozen     everything is written down and handed to the guard; this master does nothing until
//              the guard says that the new one acts (leave) or is gone (thaw)
//
// A failure at any stage leaves this master in its place, and whoever asked is told. Up to `frozen`
// the pool goes on as always; the loop is never blocked.
#include <algorithm>

#include "master/master.h"
#include "master/to_ruby.h"

namespace einhorn::master {
namespace {

constexpr Duration kCheckPatience = std::chrono::seconds{30};
constexpr Duration kBootPatience = std::chrono::seconds{60};
constexpr Duration kFrozenPatience = std::chrono::seconds{10};
constexpr int kExited = 1;  // CLD_EXITED

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool is_dropped(const std::string& variable, const std::vector<std::string>& dropped) {
  return std::any_of(dropped.begin(), dropped.end(), [&variable](const std::string& name) {
    return variable.size() > name.size() && variable.starts_with(name) &&
           variable[name.size()] == '=';
  });
}

}  // namespace

// How einhorn is called now: --reexec-as, or as it was called at first, in the environment it had
// then.
Result<os::SpawnSpec> Master::successor_spec(const std::vector<std::string>& flags) {
  os::SpawnSpec spec;
  spec.arguments = settings_.reexec_commandline;
  if (spec.arguments.empty()) {
    spec.arguments.push_back(settings_.script);
  }
  std::string path;
  for (const std::string& variable : settings_.start_environment) {
    if (!is_dropped(variable, settings_.drop_environment)) {
      spec.environment.push_back(variable);
    }
    if (variable.starts_with("PATH=")) {
      path = variable.substr(5);
    }
  }
  Result<std::string> program = kernel_.find_program(spec.arguments[0], path, "");
  if (!program) {
    return program.error();
  }
  spec.program = *program;
  spec.arguments.insert(spec.arguments.end(), flags.begin(), flags.end());
  spec.arguments.emplace_back("--");
  spec.arguments.insert(spec.arguments.end(), settings_.original_command.begin(),
                        settings_.original_command.end());
  spec.own_group = false;
  spec.keep_below = keep_below_;
  return spec;
}

Result<os::Spawned> Master::spawn_beside(const os::SpawnSpec& spec) {
  Result<os::Spawned> spawned = kernel_.spawn(spec);
  if (!spawned) {
    return spawned;
  }
  if (spawned->failed) {
    roster_->expect_ghost(spawned->pid);
    kernel_.close(spawned->pidfd);
    guard_.ask_for(spawned->pid);
    return *spawned->failed;
  }
  return spawned;
}

Status Master::begin_upgrade(bool smooth, bool rollback) {
  if (guard_.socket() < 0) {
    // Nobody could start a master beside this one.
    if (settings_.hook(pool::Hook::kBeforeUpgrade).empty()) {
      return upgrade_pool(smooth, rollback);
    }
    settings_.pending_upgrades = 1;
    settings_.pending_smooth = smooth;
    settings_.pending_rollback = rollback;
    settings_dirty_ = true;
    persist();
    begin_pending_upgrade();
    return Ok{};
  }
  ++settings_.pending_upgrades;
  settings_.pending_config = !settings_.arguments.empty();
  settings_.pending_smooth = smooth;
  settings_.pending_rollback = rollback;
  settings_dirty_ = true;
  persist();
  return begin_reload();
}

Status Master::begin_leaving_to_ruby(bool smooth) {
  if (settings_.reexec_commandline.empty()) {
    return make_error("--to-ruby", "needs --reexec-as CMDLINE that names the Ruby Einhorn");
  }
  if (settings_.intercept != wire::Interception::kOff) {
    return make_error("--to-ruby", "Ruby Einhorn can't go on with --intercept");
  }
  if (guard_.socket() < 0 || handoff_.stage != Handoff::Stage::kNone) {
    return make_error("--to-ruby",
                      guard_.socket() < 0 ? "there is no guard" : "another hand-off is under way");
  }
  if (Status possible = check_leaving_to_ruby(settings_, pool_->config()); !possible) {
    return possible;
  }
  to_ruby_ = true;
  return begin_upgrade(smooth, false);
}

// The check has passed: the guard's process becomes the Ruby master, and this one leaves.
void Master::become_ruby() {
  const std::optional<int> program = kernel_.own_program_unless(0);
  if (!program) {
    fail_handoff("our own program can't be opened");
    return;
  }
  handoff_.stage = Handoff::Stage::kFrozen;
  handoff_.deadline = now_ + kFrozenPatience;
  if (Status written = write_all_down(); !written) {
    kernel_.close(*program);
    unfreeze();
    return;
  }
  guard_.renew(*program, 2);
  guard_.flush();
  kernel_.close(*program);
}

Status Master::begin_reload() {
  if (guard_.socket() < 0) {
    return make_error("there is no guard", "start einhorn again to get one");
  }
  if (!pool_->ledger().respawn) {
    return make_error("not reloading", "Einhorn is going down");
  }
  if (handoff_.stage != Handoff::Stage::kNone) {
    return Ok{};  // the one that is under way will do
  }
  log_->info("reloading",
             "Reloading einhorn master (" +
                 base_name(settings_.reexec_commandline.empty() ? settings_.script
                                                                : settings_.reexec_commandline[0]) +
                 ")...");
  // Ruby's Einhorn passes its check too, but could never go on with our state. It does not know
  // this option, so that it is found out here, and not when it has been waited for in vain.
  Result<os::SpawnSpec> spec =
      successor_spec(to_ruby_ ? std::vector<std::string>{"--upgrade-check"}
                              : std::vector<std::string>{"--log-format=text", "--upgrade-check"});
  events_out_->add("reload_started", [](wire::EventFields& /*fields*/) {});
  Result<os::Spawned> check = spec ? spawn_beside(*spec) : Result<os::Spawned>(spec.error());
  if (!check) {
    fail_handoff(check.error().message());  // an upgrade may wait for its hook, and somebody for it
    return check.error();
  }
  handoff_ = {Handoff::Stage::kChecking, check->pid, check->pidfd, now_ + kCheckPatience};
  return Ok{};
}

void Master::boot_successor() {
  Result<std::pair<int, int>> pair = kernel_.socket_pair();
  if (!pair) {
    fail_handoff(pair.error().message());
    return;
  }
  const auto [ours, theirs] = *pair;
  Result<int> raised = kernel_.raise(theirs, std::max(settings_.control + 1, keep_below_));
  Result<os::SpawnSpec> spec =
      successor_spec({"--with-state-fd", std::to_string(settings_.control)});
  if (!raised || !spec) {
    kernel_.close(ours);
    kernel_.close(raised ? *raised : theirs);
    fail_handoff(raised ? spec.error().message() : raised.error().message());
    return;
  }
  spec->descriptors = {{*raised, settings_.control}};
  spec->keep_below = *raised + 1;
  Result<os::Spawned> successor = spawn_beside(*spec);
  kernel_.close(*raised);
  if (!successor) {
    kernel_.close(ours);
    fail_handoff(successor.error().message());
    return;
  }
  handoff_ = {Handoff::Stage::kBooting, successor->pid, successor->pidfd, now_ + kBootPatience};
  guard_.succeed(successor->pid, ours);
  if (guard_.blocked()) {
    handoff_.control = ours;  // sent later: the descriptor has to live until then
  } else {
    kernel_.close(ours);
  }
}

// True: that child was part of a hand-off.
bool Master::on_handoff_child(Pid pid, os::Ended how) {
  if (handoff_.stage == Handoff::Stage::kNone || pid != handoff_.pid) {
    return false;
  }
  if (handoff_.stage == Handoff::Stage::kChecking) {
    kernel_.close(handoff_.pidfd);
    handoff_.pidfd = -1;
    if (how.code == kExited && how.status == 0) {
      to_ruby_ ? become_ruby() : boot_successor();
    } else {
      const bool perhaps_ruby = how.code == kExited && how.status == 1 && !to_ruby_ &&
                                !settings_.reexec_commandline.empty();
      fail_handoff(
          "the check (--upgrade-check) " +
          std::string(how.code == kExited ? "exited with status " : "was killed by signal ") +
          std::to_string(how.status) +
          (perhaps_ruby ? "; if --reexec-as names Ruby's Einhorn, say --to-ruby" : ""));
    }
    return true;
  }
  if (handoff_.stage == Handoff::Stage::kBooting) {
    unfreeze();  // dead before the guard knew what it was; usually THAW tells of a successor's end
  }
  return true;
}

void Master::on_handoff_deadline() {
  const char* what = "";
  switch (handoff_.stage) {
    case Handoff::Stage::kNone:
      return;
    case Handoff::Stage::kChecking:
      what = "The upgrade check takes too long; ending it";
      break;
    case Handoff::Stage::kBooting:
      what = "The new master does not come up; ending it";
      break;
    case Handoff::Stage::kFrozen:
      what = "The new master does not get ready; ending it";
      break;
  }
  log_->error("reload_failed", what);
  // Its end comes back as an event, and that is when we go on.
  kernel_.signal(handoff_.pidfd, handoff_.pid, SIGKILL, false);
  handoff_.deadline = now_ + kFrozenPatience;
}

void Master::fail_handoff(const std::string& reason) {
  if (handoff_.pidfd >= 0) {
    kernel_.close(handoff_.pidfd);
  }
  if (handoff_.control >= 0) {
    kernel_.close(handoff_.control);
  }
  handoff_ = {};
  to_ruby_ = false;
  const bool upgrade = std::exchange(settings_.pending_upgrades, 0) > 0;
  settings_dirty_ = true;
  events_out_->add("reload_failed", [&](wire::EventFields& fields) {
    fields.field("reason", reason).field("upgrade", upgrade);
  });
  log_->error("reload_failed",
              "Can not initiate einhorn master reload safely, aborting: " + reason);
  persist();
  if (upgrade) {
    server_->publish(
        "Could not start the upgrade: Can not initiate einhorn master reload safely, "
        "aborting: " +
            reason,
        true, "could_not_start");
  }
}

void Master::freeze() {
  if (handoff_.stage != Handoff::Stage::kBooting) {
    return;
  }
  handoff_.stage = Handoff::Stage::kFrozen;
  handoff_.deadline = now_ + kFrozenPatience;
  if (!write_all_down()) {
    kernel_.signal(handoff_.pidfd, handoff_.pid, SIGKILL, false);
    return;  // its end thaws us
  }
  guard_.frozen();
}

// The snapshot with every client in it; the guard gets what it has to keep.
Status Master::write_all_down() {
  publish_what_waited();
  events_out_->flush();  // what is numbered goes on with its connection
  wire::Snapshot all = snapshot();
  for (const auto& [id, connection] : server_->connections()) {
    if (connection.fd >= 0 && !connection.closing) {
      all.connections[id] = CommandServer::record_of(connection);
      if (!connection.kept) {
        guard_.keep("conn:" + std::to_string(id), connection.fd);
      }
    }
  }
  Status written = journal_->rewrite(all);
  if (!written) {
    log_->error("snapshot_failed", "Can't write the snapshot: " + written.error().message());
  }
  return written;
}

void Master::unfreeze() {
  if (handoff_.stage == Handoff::Stage::kNone) {
    return;
  }
  for (const auto& [id, connection] : server_->connections()) {
    if (connection.fd >= 0 && !connection.kept) {
      guard_.forget("conn:" + std::to_string(id));
    }
  }
  // The new one may have given the guard a snapshot of its own already: from here on ours counts
  // again.
  if (Status written = journal_->rewrite(snapshot()); !written) {
    log_->error("snapshot_failed", "Can't write the snapshot: " + written.error().message());
  }
  fail_handoff("the new master ended before it was ready");
}

// The guard has died in the middle of the hand-off: either the new one had taken its turn by then,
// or it never will.
bool Master::successor_acts() {
  os::SpawnNote* note = journal_->note();
  return !to_ruby_ && note != nullptr && !Journal::decide(*note, os::SpawnNote::kTheOldMaster) &&
         !kernel_.is_dead(handoff_.pidfd);
}

// Nothing but the guard is listened to. False: the new master acts.
bool Master::handoff_turn() {
  std::array<os::Ready, 64> ready;
  kernel_.wait(ready, handoff_.deadline);
  now_ = kernel_.now();
  log_->set_time(to_wall(now_, settings_.wall_offset));
  on_guard();
  if (left_) {
    return false;
  }
  if (handoff_.stage == Handoff::Stage::kFrozen && now_ >= handoff_.deadline) {
    on_handoff_deadline();
  }
  watch_guard();
  return true;
}

}  // namespace einhorn::master
