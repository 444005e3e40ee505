#include "master/narrate.h"

#include "base/signals.h"
#include "wire/note_events.h"

namespace einhorn::master {
namespace {

std::string number(std::uint64_t value) { return std::to_string(value); }

std::string worker_list(const std::vector<WorkerId>& workers, const PidOf& pid_of) {
  return list_of_pids(workers, pid_of);
}

class Narrator {
 public:
  Narrator(const PidOf& pid_of, pool::AckMode mode) : pid_of_(pid_of), mode_(mode) {}
  std::vector<LogLine> take() { return std::move(lines_); }

  void operator()(const pool::note::Launching& note) {
    say("launching", "Launching " + number(note.count) + " new workers");
  }
  void operator()(const pool::note::Launched& note) {
    about("launched", note.worker, note.version,
          "===> Launched " + pid(note.worker) + " (index: " + number(note.worker.slot.value) + ")");
    upgrade();
  }
  void operator()(const pool::note::LaunchFailed& note) {
    about(
        "launch_failed", note.worker, note.version,
        "Could not launch a worker (index: " + number(note.worker.slot.value) + "): " + note.reason,
        Level::kError);
    upgrade();
  }
  void operator()(const pool::note::Exited& note) {
    about(
        "exited", note.worker, note.version,
        "===> Exited worker " + pid(note.worker) + (note.before_ack ? " before it was ACKed" : ""));
    upgrade();
    if (!note.stopping || note.status.kind == pool::ExitStatus::Kind::kSignaled) {
      about("exit_status", note.worker, note.version,
            "Worker " + pid(note.worker) + " " + describe(note.status) + " after " +
                seconds_text(note.lived) + "s");
    }
  }
  void operator()(const pool::note::Acked& note) {
    switch (note.by) {
      case pool::AckMode::kTimer:
        about("acked", note.worker, {},
              "Worker " + pid(note.worker) + " has been up for " + seconds_text(note.after) +
                  "s, so we are considering it alive.");
        return;
      case pool::AckMode::kManual:
        about("acked", note.worker, {}, "Received a manual ACK from " + pid(note.worker));
        return;
      case pool::AckMode::kNotify:
        about("acked", note.worker, {}, "Received READY=1 from " + pid(note.worker));
        return;
      case pool::AckMode::kListen:
        about("acked", note.worker, {},
              "Worker " + pid(note.worker) + " listens, " + seconds_text(note.after) +
                  "s after its start");
        return;
    }
  }
  void operator()(const pool::note::AckCount& note) {
    std::string text = "Up to " + number(note.ready) + " / " + number(note.target) + " " +
                       std::string(wire::ack_mode_name(mode_)) + " ACKs";
    if (note.streak > 0) {
      text +=
          ", breaking the streak of " + number(note.streak) + " consecutive unacked workers dying";
    }
    say("ack_count", std::move(text));
  }
  void operator()(const pool::note::AckRefused& note) {
    if (note.repeated) {
      about("ack_refused", note.worker, {},
            "Pid " + pid(note.worker) + " already ACKed; ignoring new ACK.", Level::kError);
      return;
    }
    about("ack_refused", note.worker, {},
          "Received a " + std::string(wire::ack_mode_name(note.by)) + " ACK for " +
              pid(note.worker) + ", but ack_mode is " + std::string(wire::ack_mode_name(mode_)) +
              ". Ignoring ACK.",
          Level::kError);
  }
  void operator()(const pool::note::AckOverdue& note) {
    about("ack_overdue", note.worker, {},
          "Worker " + pid(note.worker) + " has been up for " + seconds_text(note.waited) +
              "s and has not ACKed yet.",
          Level::kError);
  }
  void operator()(const pool::note::AckMissed& note) {
    about("ack_missed", note.worker, {},
          "Worker " + pid(note.worker) + " did not ACK within " + seconds_text(note.waited) +
              "s; stopping it.",
          Level::kError);
    upgrade();
  }
  void operator()(const pool::note::Signaling& note) {
    const std::string signal = signal_name(note.signal);
    for (const WorkerId worker : note.again) {
      about("signaling_again", worker, {},
            "Re-sending " + signal + " to already-signaled child " + pid(worker) +
                ". It may be slow to spin down, or it may be swallowing " + signal + "s.",
            Level::kError);
      upgrade();
    }
    say("signaling", "Sending " + signal + " to " + worker_list(note.workers, pid_of_));
    upgrade();
  }
  void operator()(const pool::note::Killing& note) {
    about("killing", note.worker, {},
          "Child " + pid(note.worker) + " is still active after " + seconds_text(note.after) +
              "s. Sending SIGKILL.");
    upgrade();
  }
  void operator()(const pool::note::BackingOff& note) {
    say("backing_off", "There have been " + number(note.deaths) +
                           " consecutive unacked worker deaths; waiting " +
                           seconds_text(note.interval) + "s before spinning up a new process.");
    upgrade();
  }
  void operator()(const pool::note::UpgradeStarted& note) {
    if (note.again) {
      say("upgrade_restarted", "Currently upgrading (" + number(note.ready) +
                                   " ACKs; bumping version to " + number(note.to.value) +
                                   " and starting over)...");
    } else {
      say("upgrade_started", std::string("Starting ") + (note.smooth ? "smooth" : "fleet") +
                                 " upgrade from version " + number(note.from.value) + "...");
    }
    lines_.back().version = note.to;
    upgrade();
  }
  void operator()(const pool::note::CanaryProved& note) {
    say("canary_proved", "Version " + number(note.version.value) + " has proved itself with " +
                             number(note.workers) + " worker" + (note.workers == 1 ? "" : "s") +
                             "; the rest follows.");
    lines_.back().version = note.version;
    upgrade();
  }
  void operator()(const pool::note::CullingOld& note) {
    say("culling_old", std::string(note.smooth ? "Smooth upgrade: killing off " : "Killing off ") +
                           number(note.count) + " old workers.");
    upgrade();
  }
  void operator()(const pool::note::CullingExcess& note) {
    say("culling_excess", "Have too many workers at the current version, so killing off " +
                              number(note.count) + " of them.");
  }
  void operator()(const pool::note::Upgraded& note) {
    say("upgraded", "Upgraded successfully to version " + number(note.version.value) +
                        " (Einhorn " EINHORN_VERSION ").");
    lines_.back().version = note.version;
    upgrade();
  }
  void operator()(const pool::note::UpgradeFailed& note) {
    say("upgrade_failed",
        "Upgrade to version " + number(note.to.value) + " failed: " + note.reason + ".",
        Level::kError);
    lines_.back().version = note.to;
    upgrade();
    for (const std::string& failure : note.failures) {
      say("upgrade_failure", "  " + failure, Level::kError);
      upgrade();
    }
  }
  void operator()(const pool::note::RollBackStarted& note) {
    say("roll_back_started", "Rolling back from version " + number(note.from.value) +
                                 " to version " + number(note.to.value) + "...");
    lines_.back().version = note.to;
    upgrade();
  }
  void operator()(const pool::note::RolledBack& note) {
    say("rolled_back", "Rolled back to version " + number(note.version.value) + ".");
    lines_.back().version = note.version;
    upgrade();
  }
  void operator()(const pool::note::RollBackRefused& note) {
    say("roll_back_refused", "Can't roll back: " + note.reason + ".", Level::kError);
  }
  void operator()(const pool::note::RollBackIncomplete& note) {
    say("roll_back_incomplete",
        "Workers of version " + number(note.version.value) +
            " fail as well; going on with it and waiting between starts: " + note.reason + ".",
        Level::kError);
    upgrade();
  }
  void operator()(const pool::note::Scaled& note) {
    say("scaled", std::string(note.to > note.from ? "Adding" : "Removing") + " workers, " +
                      number(note.from) + " -> " + number(note.to) + ": " + note.reason);
  }
  void operator()(const pool::note::NumberChanged& note) {
    say("number_changed", "Number of workers: " + number(note.from) + " -> " + number(note.to),
        Level::kDebug);
  }
  void operator()(const pool::note::GaveUp& note) {
    say("gave_up",
        "GIVING UP: " + number(note.deaths) +
            " workers in a row died before they were ACKed. No new worker is started until an "
            "upgrade, inc, dec or set_workers says so.",
        Level::kError);
  }
  void operator()(const pool::note::Recovered& /*note*/) {
    say("recovered", "Starting workers again after having given up.");
  }
  void operator()(const pool::note::Condemned& note) {
    const std::string id = note.request_id.empty() ? "" : ", last request " + note.request_id;
    about("condemned", note.worker, note.version,
          "Worker " + pid(note.worker) + (note.killed ? " is killed: " : " hangs: ") +
              note.complaint + id + ". Its replacement starts.",
          Level::kError);
    upgrade();
  }
  void operator()(const pool::note::Ailing& note) {
    about("ailing", note.worker, note.version,
          "Worker " + pid(note.worker) + " has to be replaced: " + note.complaint);
  }
  void operator()(const pool::note::Recycling& note) {
    about(
        "recycling", note.worker, note.version,
        "Recycling worker " + pid(note.worker) + ": a replacement starts (" + note.complaint + ")");
  }
  void operator()(const pool::note::Recycled& note) {
    say("recycled", "Replacements are ready; stopping " + worker_list(note.workers, pid_of_));
  }
  void operator()(const pool::note::ProbeFailed& note) {
    about("probe_failed", note.worker, {},
          "Probe of worker " + pid(note.worker) + " failed (" + number(note.failures) + " of " +
              number(note.most) + "): " + note.detail,
          Level::kError);
  }
  void operator()(const pool::note::SlotPaused& note) {
    std::string text = "Index " + number(note.slot.value) + " is flapping: " + number(note.deaths) +
                       " deaths within " + seconds_text(note.within) + "s; ";
    if (note.pause) {
      text += "paused for " + seconds_text(*note.pause) + "s (retry " + number(note.retry) +
              " of " + number(note.retries) + ").";
    } else {
      text += "given up after " + number(note.retries) +
              " retries, until an upgrade, inc, dec or set_workers.";
    }
    say("slot_paused", std::move(text), Level::kError);
  }
  void operator()(const pool::note::SlotResumed& note) {
    say("slot_resumed", "Index " + number(note.slot.value) + " is tried again after its pause.");
  }
  void operator()(const pool::note::Stopping& note) {
    say("stopping", "Going down: sending " + signal_name(note.signal) +
                        " to all workers and leaving once they are gone.");
  }
  void operator()(const pool::note::Gone& /*note*/) { say("gone", "All workers are gone. Bye."); }

 private:
  void say(std::string_view event, std::string text, Level level = Level::kInfo) {
    LogLine line;
    line.level = level;
    line.event = event;
    line.text = std::move(text);
    lines_.push_back(std::move(line));
  }
  void about(std::string_view event, WorkerId worker, std::optional<Version> version,
             std::string text, Level level = Level::kInfo) {
    say(event, std::move(text), level);
    lines_.back().worker = worker;
    lines_.back().pid = pid_of_(worker);
    lines_.back().version = version;
  }
  void upgrade() { lines_.back().upgrade = true; }
  [[nodiscard]] std::string pid(WorkerId worker) const { return std::to_string(pid_of_(worker)); }

  const PidOf& pid_of_;
  pool::AckMode mode_;
  std::vector<LogLine> lines_;
};

}  // namespace

std::string list_of_pids(const std::vector<WorkerId>& workers, const PidOf& pid_of) {
  std::string text = "[";
  for (const WorkerId worker : workers) {
    if (text.size() > 1) {
      text += ", ";
    }
    text += std::to_string(pid_of(worker));
  }
  return text + "]";
}

std::string seconds_text(Duration duration) {
  const std::int64_t tenths = (duration.count() + 50'000'000) / 100'000'000;
  std::string text = std::to_string(tenths / 10);
  if (tenths % 10 != 0) {
    text += "." + std::to_string(tenths % 10);
  }
  return text;
}

std::vector<LogLine> narrate(const pool::Note& note, const PidOf& pid_of, pool::AckMode ack_mode) {
  Narrator narrator(pid_of, ack_mode);
  std::visit(narrator, note);
  return narrator.take();
}

}  // namespace einhorn::master
