#include "wire/note_events.h"

#include "base/signals.h"

namespace einhorn::wire {
namespace {

namespace note = pool::note;

std::string_view how(bool smooth) { return smooth ? "smooth" : "fleet"; }

std::string_view stage(const note::Exited& note) {
  return note.before_ack ? "starting" : note.stopping ? "stopping" : "ready";
}

// One pair of functions a note: the event's name, and its fields.

constexpr std::string_view name(const note::Launching&) { return "launching"; }
void write(EventFields& out, const note::Launching& note) { out.field("count", note.count); }

constexpr std::string_view name(const note::Launched&) { return "spawned"; }
void write(EventFields& out, const note::Launched& note) {
  out.worker(note.worker).field("version", note.version);
}

constexpr std::string_view name(const note::LaunchFailed&) { return "spawn_failed"; }
void write(EventFields& out, const note::LaunchFailed& note) {
  out.worker(note.worker).field("version", note.version).field("reason", note.reason);
}

constexpr std::string_view name(const note::Exited&) { return "exited"; }
void write(EventFields& out, const note::Exited& note) {
  out.worker(note.worker).field("version", note.version);
  switch (note.status.kind) {
    case pool::ExitStatus::Kind::kExited:
      out.field("status", note.status.value);
      break;
    case pool::ExitStatus::Kind::kSignaled:
      out.signal("signal", note.status.value).field("core_dumped", note.status.core_dumped);
      break;
    case pool::ExitStatus::Kind::kUnknown:
      break;
  }
  if (note.status.out_of_memory) {
    out.field("out_of_memory", true);
  }
  out.field("how", describe(note.status))
      .field("stage", stage(note))
      .field("before_ack", note.before_ack)
      .field("stopping", note.stopping)
      .field("lived", note.lived);
}

constexpr std::string_view name(const note::Acked&) { return "ready"; }
void write(EventFields& out, const note::Acked& note) {
  out.worker(note.worker).field("by", ack_mode_name(note.by)).field("after", note.after);
}

constexpr std::string_view name(const note::AckCount&) { return "ack_count"; }
void write(EventFields& out, const note::AckCount& note) {
  out.field("ready", note.ready).field("target", note.target).field("streak", note.streak);
}

constexpr std::string_view name(const note::AckRefused&) { return "ack_refused"; }
void write(EventFields& out, const note::AckRefused& note) {
  out.worker(note.worker).field("by", ack_mode_name(note.by)).field("repeated", note.repeated);
}

constexpr std::string_view name(const note::AckOverdue&) { return "ack_overdue"; }
void write(EventFields& out, const note::AckOverdue& note) {
  out.worker(note.worker).field("waited", note.waited);
}

constexpr std::string_view name(const note::AckMissed&) { return "ack_missed"; }
void write(EventFields& out, const note::AckMissed& note) {
  out.worker(note.worker).field("waited", note.waited);
}

constexpr std::string_view name(const note::Signaling&) { return "signaling"; }
void write(EventFields& out, const note::Signaling& note) {
  out.signal("signal", note.signal).workers("workers", note.workers).workers("again", note.again);
}

constexpr std::string_view name(const note::Killing&) { return "killing"; }
void write(EventFields& out, const note::Killing& note) {
  out.worker(note.worker).field("after", note.after);
}

constexpr std::string_view name(const note::BackingOff&) { return "backing_off"; }
void write(EventFields& out, const note::BackingOff& note) {
  out.field("interval", note.interval).field("deaths", note.deaths);
}

constexpr std::string_view name(const note::UpgradeStarted&) { return "upgrade_started"; }
void write(EventFields& out, const note::UpgradeStarted& note) {
  out.field("from", note.from)
      .field("to", note.to)
      .field("kind", how(note.smooth))
      .field("again", note.again)
      .field("ready", note.ready);
}

constexpr std::string_view name(const note::CanaryProved&) { return "canary_proved"; }
void write(EventFields& out, const note::CanaryProved& note) {
  out.field("version", note.version).field("count", note.workers);
}

constexpr std::string_view name(const note::CullingOld&) { return "culling_old"; }
void write(EventFields& out, const note::CullingOld& note) {
  out.field("count", note.count).field("kind", how(note.smooth));
}

constexpr std::string_view name(const note::CullingExcess&) { return "culling_excess"; }
void write(EventFields& out, const note::CullingExcess& note) { out.field("count", note.count); }

constexpr std::string_view name(const note::Upgraded&) { return "upgraded"; }
void write(EventFields& out, const note::Upgraded& note) { out.field("version", note.version); }

constexpr std::string_view name(const note::UpgradeFailed&) { return "upgrade_failed"; }
void write(EventFields& out, const note::UpgradeFailed& note) {
  out.field("from", note.from)
      .field("to", note.to)
      .field("reason", note.reason)
      .list("failures", note.failures);
}

constexpr std::string_view name(const note::RollBackStarted&) { return "rollback_started"; }
void write(EventFields& out, const note::RollBackStarted& note) {
  out.field("from", note.from).field("to", note.to);
}

constexpr std::string_view name(const note::RolledBack&) { return "rolled_back"; }
void write(EventFields& out, const note::RolledBack& note) { out.field("version", note.version); }

constexpr std::string_view name(const note::RollBackRefused&) { return "rollback_refused"; }
void write(EventFields& out, const note::RollBackRefused& note) {
  out.field("reason", note.reason);
}

constexpr std::string_view name(const note::RollBackIncomplete&) { return "rollback_incomplete"; }
void write(EventFields& out, const note::RollBackIncomplete& note) {
  out.field("version", note.version).field("reason", note.reason);
}

constexpr std::string_view name(const note::NumberChanged&) { return "number_changed"; }
void write(EventFields& out, const note::NumberChanged& note) {
  out.field("from", note.from).field("to", note.to);
}

constexpr std::string_view name(const note::Scaled&) { return "scaled"; }
void write(EventFields& out, const note::Scaled& note) {
  out.field("from", note.from).field("to", note.to).field("reason", note.reason);
}

constexpr std::string_view name(const note::GaveUp&) { return "gave_up"; }
void write(EventFields& out, const note::GaveUp& note) { out.field("deaths", note.deaths); }

constexpr std::string_view name(const note::Recovered&) { return "recovered"; }
void write(EventFields& /*out*/, const note::Recovered& /*note*/) {}

constexpr std::string_view name(const note::Condemned&) { return "condemned"; }
void write(EventFields& out, const note::Condemned& note) {
  out.worker(note.worker).field("version", note.version);
  out.field("ailment", name(note.ailment)).field("reason", note.complaint);
  if (!note.request_id.empty()) {
    out.line().json("request_id", note.request_id);
  }
  out.field("killed", note.killed);
}

constexpr std::string_view name(const note::Ailing&) { return "ailing"; }
void write(EventFields& out, const note::Ailing& note) {
  out.worker(note.worker).field("version", note.version);
  out.field("ailment", name(note.ailment)).field("reason", note.complaint);
}

constexpr std::string_view name(const note::Recycling&) { return "recycling"; }
void write(EventFields& out, const note::Recycling& note) {
  out.worker(note.worker).field("version", note.version);
  out.field("ailment", name(note.ailment)).field("reason", note.complaint);
}

constexpr std::string_view name(const note::Recycled&) { return "recycled"; }
void write(EventFields& out, const note::Recycled& note) { out.workers("workers", note.workers); }

constexpr std::string_view name(const note::ProbeFailed&) { return "probe_failed"; }
void write(EventFields& out, const note::ProbeFailed& note) {
  out.worker(note.worker).field("reason", note.detail);
  out.field("count", note.failures).field("most", note.most);
}

constexpr std::string_view name(const note::SlotPaused&) { return "slot_paused"; }
void write(EventFields& out, const note::SlotPaused& note) {
  out.field("slot", note.slot.value).field("deaths", note.deaths).field("within", note.within);
  if (note.pause) {
    out.field("interval", *note.pause);
  }
  out.field("retry", note.retry).field("most", note.retries);
}

constexpr std::string_view name(const note::SlotResumed&) { return "slot_resumed"; }
void write(EventFields& out, const note::SlotResumed& note) { out.field("slot", note.slot.value); }

constexpr std::string_view name(const note::Stopping&) { return "stopping"; }
void write(EventFields& out, const note::Stopping& note) { out.signal("signal", note.signal); }

constexpr std::string_view name(const note::Gone&) { return "gone"; }
void write(EventFields& /*out*/, const note::Gone& /*note*/) {}

}  // namespace

std::string_view ack_mode_name(pool::AckMode mode) {
  switch (mode) {
    case pool::AckMode::kTimer:
      return "timer";
    case pool::AckMode::kManual:
      return "manual";
    case pool::AckMode::kNotify:
      return "notify";
    case pool::AckMode::kListen:
      return "listen";
  }
  return "";
}

EventFields& EventFields::worker(WorkerId worker) {
  line_.field("slot", worker.slot.value).field("epoch", worker.epoch.value);
  if (const Pid pid = pid_of_(worker); pid != 0) {
    line_.field("pid", pid);
  }
  return *this;
}

EventFields& EventFields::workers(std::string_view key, const std::vector<WorkerId>& workers) {
  line_.open_list(key);
  for (const WorkerId worker : workers) {
    line_.element(worker.epoch.value);
  }
  line_.close_list();
  return *this;
}

EventFields& EventFields::unless_empty(std::string_view key, std::string_view text) {
  if (!text.empty()) {
    line_.field(key, text);
  }
  return *this;
}

EventFields& EventFields::signal(std::string_view key, int signal) {
  line_.field(key, signal_name(signal));
  return *this;
}

EventFields& EventFields::list(std::string_view key, const std::vector<std::string>& texts) {
  line_.open_list(key);
  for (const std::string& text : texts) {
    line_.element(text);
  }
  line_.close_list();
  return *this;
}

std::string_view event_name(const pool::Note& note) {
  return std::visit([](const auto& each) { return name(each); }, note);
}

void write_event(EventFields& fields, const pool::Note& note) {
  std::visit([&fields](const auto& each) { write(fields, each); }, note);
}

}  // namespace einhorn::wire
