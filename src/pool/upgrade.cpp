// Upgrades, their failure and the way back; and which workers have to go.
#include <algorithm>

#include "base/check.h"
#include "pool/pool.h"

namespace einhorn::pool {
namespace {

constexpr std::size_t kMaxReports = 10;

}  // namespace

void Pool::retarget(Version version) {
  leave_recycling_to_the_upgrade();  // those of this version, as long as it is the one that counts
  ledger_.version = version;
  ledger_.deaths_before_ack = 0;
  ledger_.burst_left = 0;
  ledger_dirty_ = true;
  forget_troubles();
  recover();
  rebucket_all();
}

void Pool::begin_upgrade(UpgradeProgress progress, Instant now) {
  progress.started_at = now;
  canary_at_.reset();
  retarget(progress.to);
  ledger_.upgrade = std::move(progress);
  ledger_.last_upgraded = now;
}

void Pool::on(const event::Upgrade& event, Instant now) {
  if (!ledger_.respawn) {
    return;
  }
  const bool again = ledger_.upgrade.has_value();
  UpgradeProgress progress;
  progress.from = ledger_.version;
  if (again) {
    progress.from = ledger_.upgrade->going_back ? ledger_.upgrade->to : ledger_.upgrade->from;
  }
  ledger_.newest.value += 1;
  progress.to = ledger_.newest;
  progress.smooth = event.smooth;
  progress.rollback = event.rollback;
  progress.proved = !event.rollback || config_.canary == 0;
  ledger_.failure.clear();
  note(note::UpgradeStarted{progress.from, progress.to, progress.smooth, again,
                            static_cast<std::uint32_t>(modern_ready_.size())});
  const bool burst = progress.proved && !progress.smooth;
  begin_upgrade(std::move(progress), now);
  if (burst) {
    ledger_.burst_left = config_.number;
  }
}

void Pool::on(const event::RollBack& /*event*/, Instant now) {
  if (!ledger_.respawn) {
    note(note::RollBackRefused{"Einhorn is going down"});
    return;
  }
  if (ledger_.upgrade) {
    if (ledger_.upgrade->going_back) {
      note(note::RollBackRefused{"a roll-back is already under way"});
    } else {
      fail_upgrade("rolled back by hand", now);
    }
    return;
  }
  if (!ledger_.previous) {
    note(note::RollBackRefused{"there is no version before this one"});
    return;
  }
  UpgradeProgress progress;
  progress.from = ledger_.version;
  progress.to = *ledger_.previous;
  progress.rollback =
      true;  // what served until now serves on if that one does not come up any more
  progress.going_back = true;
  progress.proved = true;
  note(note::RollBackStarted{progress.from, progress.to});
  begin_upgrade(std::move(progress), now);
}

std::uint32_t Pool::canaries() const {
  return std::clamp<std::uint32_t>(config_.canary, 1, std::max(1U, config_.number));
}

// Lets the rest of the workers follow once the canaries have done their time, and ends the upgrade
// once all new workers are ready.
void Pool::advance_upgrade(Instant now) {
  canary_at_.reset();
  if (!ledger_.upgrade) {
    return;
  }
  if (!ledger_.upgrade->proved && modern_ready_.size() >= canaries()) {
    Instant proved_at{};
    for (const WorkerId id : modern_ready_) {
      proved_at = std::max(proved_at, find(id)->acked_at.value_or(now) + config_.canary_seconds);
    }
    if (proved_at > now) {
      canary_at_ = proved_at;
      return;
    }
    ledger_.upgrade->proved = true;
    ledger_dirty_ = true;
    note(note::CanaryProved{ledger_.version, static_cast<std::uint32_t>(modern_ready_.size())});
    if (!ledger_.upgrade->smooth) {
      ledger_.burst_left = static_cast<std::uint32_t>(missing());
    }
  }
  if (ledger_.upgrade->proved && modern_ready_.size() >= config_.number) {
    finish_upgrade(now);
  }
}

void Pool::finish_upgrade(Instant now) {
  const UpgradeProgress done = *ledger_.upgrade;
  ledger_.upgrade.reset();
  ledger_.burst_left = 0;
  if (ledger_.proved != done.to) {
    ledger_.previous = ledger_.proved;
    ledger_.proved = done.to;
  }
  ledger_dirty_ = true;
  cull(now);  // the remaining old workers go before anybody is told that it is over
  if (done.going_back) {
    note(note::RolledBack{done.to});
  } else {
    note(note::Upgraded{done.to});
  }
}

void Pool::count_upgrade_failure(const Worker& worker, const std::string& how, Instant now,
                                 bool hopeless) {
  if (!ledger_.upgrade || worker.version != ledger_.version || !ledger_.respawn) {
    return;
  }
  UpgradeProgress& upgrade = *ledger_.upgrade;
  ++upgrade.failures;
  ledger_dirty_ = true;
  if (upgrade.reports.size() < kMaxReports) {
    upgrade.reports.push_back("worker " + std::to_string(worker.id.slot.value) + " of version " +
                              std::to_string(worker.version.value) + " " + how);
  }
  if (!hopeless && (config_.upgrade_failures == 0 || upgrade.failures < config_.upgrade_failures)) {
    return;
  }
  if (upgrade.rollback) {
    fail_upgrade(
        hopeless ? "it can't be loaded" : std::to_string(upgrade.failures) + " new workers failed",
        now);
  } else if (upgrade.going_back) {
    const std::string reason = upgrade.reports.back();
    const Version version = upgrade.to;
    ledger_.upgrade.reset();  // go on as a pool that is short of workers, with back-off
    note(note::RollBackIncomplete{version, reason});
  }
}

void Pool::fail_upgrade(std::string reason, Instant now) {
  UpgradeProgress failed = *ledger_.upgrade;
  ledger_.failure = "upgrade to version " + std::to_string(failed.to.value) + " failed: " + reason;
  for (const std::string& report : failed.reports) {
    ledger_.failure += "; " + report;
  }
  note(note::UpgradeFailed{failed.from, failed.to, std::move(reason), failed.reports});
  UpgradeProgress back;
  back.from = failed.to;
  back.to = failed.from;
  back.rollback = false;
  back.going_back = true;
  back.proved = true;
  note(note::RollBackStarted{back.from, back.to});
  begin_upgrade(std::move(back), now);
  // What has not come up yet will not be waited for.
  stop_workers(oldest(old_starting_, old_starting_.size()), config_.stop_signal, now);
}

void Pool::cull(Instant now) {
  const std::size_t number = config_.number;
  if (!ledger_.upgrade && old_unsignaled() > 0) {
    // Where a roll-back could not fill the pool up, an old one serves until it is replaced.
    const bool filled = modern_ready_.size() >= number;
    const std::size_t spare = ready() > number ? ready() - number : 0;
    std::vector<WorkerId> old = oldest(old_ready_, filled ? old_ready_.size() : spare);
    const std::vector<WorkerId> unready = oldest(old_starting_, old_starting_.size());
    old.insert(old.end(), unready.begin(), unready.end());
    if (!old.empty()) {
      note(note::CullingOld{static_cast<std::uint32_t>(old.size()), !filled});
      stop_workers(old, config_.stop_signal, now);
    }
  } else if (ledger_.upgrade && ledger_.upgrade->smooth && ledger_.upgrade->proved) {
    const std::size_t ready_now = old_ready_.size() + modern_ready_.size();
    const std::size_t excess =
        ready_now > number ? std::min(ready_now - number, old_ready_.size()) : 0;
    if (excess > 0) {
      note(note::CullingOld{static_cast<std::uint32_t>(excess), true});
      stop_workers(oldest(old_ready_, excess), config_.stop_signal, now);
    }
  }
  if (ledger_.upgrade && !ledger_.upgrade->proved && old_ready_.size() > number) {
    // The number was made smaller: the old version is kept at its full number, not above it.
    // Or a version in between came up late: that one goes first.
    const std::size_t excess = old_ready_.size() - number;
    std::vector<WorkerId> chosen;
    for (const bool proved : {false, true}) {
      for (const WorkerId id : old_ready_) {
        if (chosen.size() < excess && (find(id)->version == ledger_.upgrade->from) == proved) {
          chosen.push_back(id);
        }
      }
    }
    note(note::CullingExcess{static_cast<std::uint32_t>(excess)});
    stop_workers(chosen, config_.stop_signal, now);
  }
  const std::size_t modern = modern_starting_.size() + modern_ready_.size();
  const std::size_t most = wanted() + recycling_.size();
  if (modern > most) {
    const std::size_t excess = modern - most;
    std::vector<WorkerId> chosen = oldest(modern_starting_, excess);
    const std::vector<WorkerId> more = oldest(modern_ready_, excess - chosen.size());
    chosen.insert(chosen.end(), more.begin(), more.end());
    note(note::CullingExcess{static_cast<std::uint32_t>(chosen.size())});
    stop_workers(chosen, config_.stop_signal, now);
  }
}

}  // namespace einhorn::pool
