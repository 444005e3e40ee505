// When workers are started: filling the pool up, pacing, back-off, giving up.
#include <algorithm>

#include "base/limits.h"
#include "pool/pool.h"

namespace einhorn::pool {
namespace {

constexpr Duration kPauseBetweenQuickDeaths = std::chrono::milliseconds{500};

}  // namespace

void Pool::settle(Instant now) {
  if (ledger_.respawn) {
    advance_upgrade(now);
    advance_recycling(now);
    cull(now);
    replenish(now);
  } else {
    spinup_at_.reset();
  }
  plan_samples(now);
  finish_if_over();
}

void Pool::finish_if_over() {
  if (alive_ > 0 || ledger_.left) {
    return;
  }
  if (!ledger_.respawn) {
    note(note::Gone{});
    actions_.emplace_back(Leave{0});
  } else if (ledger_.failed) {
    actions_.emplace_back(Leave{1});
  } else {
    return;
  }
  ledger_.left = true;
  ledger_dirty_ = true;
}

std::size_t Pool::missing() const {
  const std::size_t have = modern_starting_.size() + modern_ready_.size();
  std::size_t want = wanted() + recycling_.size();
  if (ledger_.upgrade && !ledger_.upgrade->proved) {
    want = std::min<std::size_t>(want, canaries());
  }
  return want > have ? want - have : 0;
}

Duration Pool::spinup_interval(Instant now) const {
  if (dying_quickly(now)) {
    return kPauseBetweenQuickDeaths;
  }
  if (!config_.seconds && ledger_.deaths_before_ack == 0) {
    return Duration::zero();
  }
  const double base = config_.seconds ? to_seconds(*config_.seconds) : 1.0;
  const double most = std::max(to_seconds(limits::kMaxSpinupInterval), base);
  double interval = base;
  for (std::uint32_t i = 0; i < ledger_.deaths_before_ack && interval < most; ++i) {
    interval *= limits::kSpinupBackoffFactor;
  }
  return from_seconds(std::min(interval, most));
}

bool Pool::may_spawn(const Bucket& starting, Instant now) {
  if (alive_ >= limits::kMaxWorkers) {
    return false;
  }
  if (ledger_.burst_left > 0) {
    return true;
  }
  if (starting.size() >= config_.max_unacked) {
    return false;
  }
  // A fleet upgrade needs all of its workers beside the old ones: a limit would hold it up for
  // ever.
  if (ledger_.upgrade && ledger_.upgrade->smooth && config_.max_upgrade_additional) {
    // The canaries have to fit in: until they have proved their version nobody makes room.
    const std::uint32_t least = ledger_.upgrade->proved ? 1 : canaries();
    if (alive_ >= std::size_t{config_.number} + std::max(least, *config_.max_upgrade_additional)) {
      return false;
    }
  }
  const Duration interval = spinup_interval(now);
  if (interval > Duration::zero() && ledger_.last_spinup && now < *ledger_.last_spinup + interval) {
    spinup_at_ = *ledger_.last_spinup + interval;
    return false;
  }
  return true;
}

void Pool::replenish(Instant now) {
  const std::optional<Instant> announced = std::exchange(spinup_at_, std::nullopt);
  if (ledger_.failed) {
    return;
  }
  const bool unproved = ledger_.upgrade && !ledger_.upgrade->proved;
  // Where there is a pause between two starts the versions take turns: workers of one that die
  // again and again must not keep the other from ever being started.
  const bool modern_first =
      unproved && ledger_.next_epoch % 2 == 0 && spinup_interval(now) > Duration::zero();
  if (unproved && !modern_first) {
    replace_old(now);
  }
  start_missing(announced, now);
  if (modern_first) {
    replace_old(now);
  }
}

// `announced`: a start that was waited for until then is known already.
void Pool::start_missing(std::optional<Instant> announced, Instant now) {
  std::size_t wanted = missing();
  if (wanted == 0) {
    if (ledger_.burst_left > 0 && (!ledger_.upgrade || ledger_.upgrade->proved)) {
      ledger_.burst_left = 0;
      ledger_dirty_ = true;
    }
    return;
  }
  if (ledger_.burst_left > 0 && !ledger_.last_spinup) {
    note(note::Launching{static_cast<std::uint32_t>(wanted)});
  }
  std::size_t budget = limits::kMaxSpawnsPerTurn;
  while (wanted > 0 && may_spawn(modern_starting_, now)) {
    if (budget-- == 0) {
      spinup_at_ = now;  // the rest at once, but after everybody else had a turn
      break;
    }
    spawn(ledger_.version, now);
    --wanted;
  }
  if (spinup_at_ && spinup_at_ != announced && ledger_.deaths_before_ack > 0 && *spinup_at_ > now) {
    note(note::BackingOff{*spinup_at_ - now, ledger_.deaths_before_ack});
  }
}

// Until the new version has proved itself, the old one is kept at its full number, also while new
// workers that hang take up all that may be starting of their own version.
void Pool::replace_old(Instant now) {
  while (old_unsignaled() < config_.number && may_spawn(old_starting_, now)) {
    spawn(ledger_.upgrade->from, now);
  }
}

void Pool::spawn(Version version, Instant now) {
  Worker worker;
  worker.id = WorkerId{take_lowest_slot(), Epoch{ledger_.next_epoch++}};
  worker.version = version;
  worker.spawned_at = now;
  Entry& spawned = insert(std::move(worker));
  touch(spawned);
  if (ledger_.burst_left > 0) {
    --ledger_.burst_left;
  }
  ledger_.last_spinup = now;
  ledger_dirty_ = true;
  if (config_.hook_before_start) {
    spawned.worker.hook = Hook::kBeforeStart;
    actions_.emplace_back(RunHook{spawned.worker.id, version, Hook::kBeforeStart});
    return;
  }
  actions_.emplace_back(Spawn{spawned.worker.id, version});
}

}  // namespace einhorn::pool
