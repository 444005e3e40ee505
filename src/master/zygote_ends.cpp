// How zygotes end, and what is due when.
#include <algorithm>
#include <csignal>

#include "master/exit_status.h"
#include "master/zygote_text.h"
#include "master/zygotes.h"

namespace einhorn::master {
namespace {

using pool::event::Blame;
using zygote::kForkPatience;
using zygote::kLived;
using zygote::kNamePrefix;
using zygote::seconds;

constexpr Duration kLeavePatience = std::chrono::seconds{2};
constexpr Duration kEndPatience = std::chrono::seconds{2};
constexpr Duration kFirstDelay = std::chrono::milliseconds{100};
constexpr Duration kMostDelay = std::chrono::seconds{30};
constexpr int kSocketLost = 76;  // EX_PROTOCOL, by which a zygote says so

std::string describe(std::optional<os::Ended> how) {
  if (!how) {
    return "ended in an unknown way";
  }
  return pool::describe(exit_status(*how));
}

}  // namespace

// --- how they end -------------------------------------------------------------------------------

// Mostly it is ending, and how it does will say more.
void Zygotes::on_closed(Zygote& zygote, Instant now) {
  kernel_.unwatch(zygote.socket);
  // First: the guard's message may still wait, with the descriptor.
  guard_.forget(std::string(kNamePrefix) + std::to_string(zygote.record.number));
  kernel_.close(std::exchange(zygote.socket, -1));
  if (zygote.state == State::kLeaving) {
    drop(zygote.record.number);
  } else {
    zygote.deadline = now + kEndPatience;
  }
}

void Zygotes::on_death(std::uint64_t key, Instant now) {
  Zygote* zygote = find(key);
  if (zygote == nullptr || zygote->ended || !kernel_.is_dead(zygote->pidfd)) {
    return;
  }
  hear(key, now);
  zygote = find(key);
  if (zygote == nullptr) {
    return;
  }
  kernel_.unwatch(zygote->pidfd);
  if (zygote->own) {
    on_ended(*zygote, kernel_.reap(zygote->record.pid), now);
  } else if (zygote->foreign || guard_.socket() < 0) {
    on_ended(*zygote, std::nullopt, now);
  } else {
    guard_.ask_for(zygote->record.pid);
  }
}

bool Zygotes::on_ended(Pid pid, os::Ended how, Instant now) {
  for (auto& [key, zygote] : zygotes_) {
    if (zygote.record.pid == pid && !zygote.ended) {
      const std::uint64_t ended = key;
      hear(ended, now);
      if (Zygote* still = find(ended)) {
        on_ended(*still, how, now);
      }
      return true;
    }
  }
  return false;
}

void Zygotes::tell_lost(const char* event, const Zygote& zygote, const std::string& reason,
                        const char* then) {
  const wire::ZygoteRecord& record = zygote.record;
  hooks_.told({"zygote_lost", record.version, record.pid, reason, std::nullopt});
  log_.error(event, "The zygote of version " + std::to_string(record.version.value) + " (pid " +
                        std::to_string(record.pid) + ") " + reason + then);
}

void Zygotes::on_ended(Zygote& zygote, std::optional<os::Ended> how, Instant now) {
  zygote.ended = true;
  std::string what = describe(how);
  if (how && how->code == CLD_EXITED && how->status == kSocketLost) {
    what = closed_socket() + " and " + what;
  }
  switch (zygote.state) {
    case State::kLoading: {
      // Somebody else's doing, or the code's own?
      const bool killed =
          how && how->code != CLD_EXITED && (how->status == SIGKILL || how->status == SIGTERM);
      fail_load(zygote,
                "its zygote " + what + " while it was loaded" +
                    (zygote.status.empty() ? "" : " (" + zygote.status + ")"),
                killed ? Blame::kWorker : Blame::kVersion, now);
      return;
    }
    case State::kReady:
      tell_lost("zygote_lost", zygote, what, ". Its workers stay; another one is started");
      plan_restart(zygote.record.version, now - zygote.started_at > kLived, now);
      leave(zygote, now);
      dispatch(now);
      return;
    case State::kLeaving:
      if (is_over(zygote)) {
        drop(zygote.record.number);
      }
      return;
  }
}

// Whether nothing can come from it any more. Of an adopted one it is not known what the last master
// had asked it for.
bool Zygotes::is_over(const Zygote& zygote) {
  return zygote.ended && (zygote.socket < 0 || (zygote.sent.empty() && !zygote.adopted));
}

// It gets nothing more to do. Who was asked for may have been forked already.
void Zygotes::leave(Zygote& zygote, Instant now) {
  zygote.state = State::kLeaving;
  zygote.deadline = now + kLeavePatience;
  if (is_over(zygote)) {
    drop(zygote.record.number);
  }
}

void Zygotes::fail_load(Zygote& zygote, const std::string& reason, Blame blame, Instant now) {
  const Version version = zygote.record.version;
  hooks_.told({"preload_failed", version, zygote.record.pid, reason, std::nullopt});
  log_.error("preload_failed", "Could not preload " + shown() + " (version " +
                                   std::to_string(version.value) + "): " + reason);
  kill(zygote);
  drop(zygote.record.number);
  const bool asked = std::any_of(waiting_.begin(), waiting_.end(), [version](const auto& entry) {
    return entry.second.second == version;
  });
  if (!asked) {
    plan_restart(version, false, now);  // else the pool decides when it tries again
  }
  if (settings_.preload_fallback && hooks_.fall_back(version)) {
    log_.info("postload", "Proceeding with postload: workers of version " +
                              std::to_string(version.value) + " execute their command");
    restart_at_.erase(version);
    for (const WorkerId worker : take_waiting(version)) {
      requests_.erase(worker.epoch);
      hooks_.execute(worker, version);
    }
    return;
  }
  fail_waiting(version, "could not be preloaded: " + reason, blame);
}

std::vector<WorkerId> Zygotes::take_waiting(Version version) {
  std::vector<WorkerId> workers;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (it->second.second == version) {
      workers.push_back(it->second.first);
      it = waiting_.erase(it);
    } else {
      ++it;
    }
  }
  return workers;
}

// One of them counts, for it is one failure.
void Zygotes::fail_waiting(Version version, const std::string& reason, Blame blame) {
  for (const WorkerId worker : take_waiting(version)) {
    fail(worker, reason,
         hooks_.wanted(worker) ? std::exchange(blame, Blame::kNobody) : Blame::kNobody);
  }
}

void Zygotes::plan_restart(Version version, bool lived, Instant now) {
  Duration& delay = delays_[version];
  delay = lived ? Duration{0} : std::clamp(delay * 2, kFirstDelay, kMostDelay);
  restart_at_[version] = now + delay;
}

// Its whole group: also what it was forking just now, and what its code has forked.
void Zygotes::kill(const Zygote& zygote) {
  if (zygote.pidfd >= 0 && !zygote.ended) {
    kernel_.signal(zygote.pidfd, zygote.record.pid, SIGKILL, true);
  }
}

void Zygotes::drop(std::uint64_t key) {
  auto node = zygotes_.extract(key);
  if (node.empty()) {
    return;
  }
  Zygote& zygote = node.mapped();
  kill(zygote);
  if (zygote.pidfd >= 0) {
    kernel_.unwatch(zygote.pidfd);
    kernel_.close(zygote.pidfd);
  }
  if (zygote.socket >= 0) {
    kernel_.unwatch(zygote.socket);
    guard_.forget(std::string(kNamePrefix) + std::to_string(key));
    kernel_.close(zygote.socket);
  }
  hooks_.note(wire::encode_zygote_gone(key));
  Blame blame = Blame::kWorker;
  for (const auto& [id, sent] : zygote.sent) {
    fail(sent.worker, "its zygote ended before it had forked it",
         hooks_.wanted(sent.worker) ? std::exchange(blame, Blame::kNobody) : Blame::kNobody);
  }
}

void Zygotes::end_all() {
  for (auto& [key, zygote] : zygotes_) {
    kill(zygote);
  }
}

void Zygotes::on_guard_lost(Instant now) {
  std::vector<std::uint64_t> dead;
  for (auto& [key, zygote] : zygotes_) {
    zygote.foreign = true;
    if (zygote.pidfd >= 0 && !zygote.ended && kernel_.is_dead(zygote.pidfd)) {
      dead.push_back(key);
    }
  }
  for (const std::uint64_t key : dead) {
    hear(key, now);
    if (Zygote* zygote = find(key)) {
      on_ended(*zygote, std::nullopt, now);
    }
  }
}

// --- time ---------------------------------------------------------------------------------------

std::optional<Instant> Zygotes::next_deadline() const {
  std::optional<Instant> next;
  const auto consider = [&next](Instant at) {
    if (!next || at < *next) {
      next = at;
    }
  };
  for (const auto& [key, zygote] : zygotes_) {
    if (zygote.deadline) {
      consider(*zygote.deadline);
    }
    if (!zygote.sent.empty() && zygote.state != State::kLeaving) {
      consider(zygote.sent.begin()->second.deadline);
    }
  }
  for (const auto& [version, at] : restart_at_) {
    consider(at);
  }
  for (const auto& [epoch, vanished] : vanished_) {
    consider(vanished.second);
  }
  if (review_) {
    consider(Instant{});
  }
  return next;
}

void Zygotes::turn(Instant now) {
  std::vector<std::uint64_t> all;
  for (const auto& [key, zygote] : zygotes_) {
    all.push_back(key);
  }
  for (const std::uint64_t key : all) {
    if (Zygote* zygote = find(key)) {
      on_deadline(*zygote, now);
    }
  }
  // Not in the order of their epochs: a hook may have held up an older one.
  std::vector<WorkerId> lost;
  std::erase_if(vanished_, [&lost, now](const auto& entry) {
    const auto& [worker, until] = entry.second;
    if (until <= now) {
      lost.push_back(worker);
    }
    return until <= now;
  });
  for (const WorkerId worker : lost) {
    hooks_.lost(worker);
  }
  if (std::exchange(review_, false)) {
    review_versions();
  }
  std::vector<Version> due;
  for (const auto& [version, at] : restart_at_) {
    if (at <= now) {
      due.push_back(version);
    }
  }
  for (const Version version : due) {
    restart_at_.erase(version);
    if (hooks_.current(version) && active(version) == nullptr) {
      begin(version, now);
    }
  }
}

std::string Zygotes::closed_socket() const {
  return "closed its socket to Einhorn (descriptor " + std::to_string(settings_.control) +
         "; code must not close what it has not opened)";
}

void Zygotes::on_deadline(Zygote& zygote, Instant now) {
  const bool due = zygote.deadline && *zygote.deadline <= now;
  const bool silent = !zygote.sent.empty() && zygote.sent.begin()->second.deadline <= now;
  switch (zygote.state) {
    case State::kLoading:
      if (due) {
        fail_load(
            zygote,
            (zygote.socket < 0 ? "its zygote " + closed_socket()
                               : "it was not loaded within " + seconds(settings_.preload_timeout)) +
                (zygote.status.empty() ? "" : " (" + zygote.status + ")"),
            Blame::kVersion, now);
      }
      return;
    case State::kReady:
      if (due && zygote.socket < 0) {
        tell_lost("zygote_lost", zygote, closed_socket(), "; ending it");
        plan_restart(zygote.record.version, now - zygote.started_at > kLived, now);
        drop(zygote.record.number);
        dispatch(now);
      } else if (silent || due) {
        tell_lost("zygote_silent", zygote,
                  "has not forked a worker within " + seconds(kForkPatience), "; ending it");
        kill(zygote);
        plan_restart(zygote.record.version, now - zygote.started_at > kLived, now);
        leave(zygote, now);
        dispatch(now);
      }
      return;
    case State::kLeaving:
      if (due || is_over(zygote)) {
        drop(zygote.record.number);
      }
      return;
  }
}

// Nobody waits for what is not wanted any more; and zygotes go with their version.
void Zygotes::review_versions() {
  std::vector<WorkerId> unwanted;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (!hooks_.wanted(it->second.first)) {
      unwanted.push_back(it->second.first);
      it = waiting_.erase(it);
    } else {
      ++it;
    }
  }
  for (const WorkerId worker : unwanted) {
    fail(worker, "", Blame::kNobody);
  }
  const std::set<Version> needed = hooks_.needed();
  std::vector<std::uint64_t> idle;
  for (const auto& [key, zygote] : zygotes_) {
    if (!needed.contains(zygote.record.version) && zygote.sent.empty()) {
      idle.push_back(key);
    }
  }
  for (const std::uint64_t key : idle) {
    drop(key);
  }
  const auto over = [&needed](const auto& entry) { return !needed.contains(entry.first); };
  std::erase_if(restart_at_, over);
  std::erase_if(delays_, over);
}

}  // namespace einhorn::master
