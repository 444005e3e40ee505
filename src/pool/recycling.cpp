// Replacing workers that are ailing, and slots that are left empty because their workers die again
// and again; see health.h.
#include <algorithm>

#include "pool/pool.h"

namespace einhorn::pool {
namespace {

// Retries are counted anew when the first pause is that long ago.
constexpr Duration kForgetRetries = std::chrono::hours{2};

}  // namespace

// --- recycling ----------------------------------------------------------------------------------

// Who is in which set; after every change of a worker's state or ailment.
void Pool::file(Entry& entry) {
  const Worker& worker = entry.worker;
  const auto belongs = [&worker](Bucket& bucket, bool there) {
    if (there) {
      bucket.insert(worker.id);
    } else if (!bucket.empty()) {
      bucket.erase(worker.id);
    }
  };
  const bool serves = worker.state == WorkerState::kReady && worker.version == ledger_.version;
  belongs(ailing_, serves && worker.ailment != Ailment::kNone && !worker.recycling);
  belongs(recycling_, serves && worker.recycling);
  belongs(recycled_, worker.stopping() && worker.recycling);
}

void Pool::unfile(WorkerId worker) {
  ailing_.erase(worker);
  recycling_.erase(worker);
  recycled_.erase(worker);
}

// Workers that are wanted, apart from replacements of those that still serve.
std::size_t Pool::wanted() const {
  const std::size_t number = config_.number;
  return ledger_.upgrade ? number : number - std::min(number, paused_);
}

void Pool::set_recycling(WorkerId worker, bool recycling) {
  Entry* changed = entry(worker);
  changed->worker.recycling = recycling;
  touch(*changed);
  file(*changed);
}

// An upgrade replaces everybody. If it fails, those that stay are looked at again.
void Pool::leave_recycling_to_the_upgrade() {
  while (!recycling_.empty()) {
    set_recycling(*recycling_.begin(), false);
  }
}

// Who has a replacement that is ready goes, and the next ones get theirs.
void Pool::advance_recycling(Instant now) {
  if (ledger_.upgrade) {
    leave_recycling_to_the_upgrade();
    return;
  }
  const std::size_t number = wanted();
  if (!recycling_.empty() && modern_ready_.size() > number) {
    std::vector<WorkerId> replaced = oldest(recycling_, modern_ready_.size() - number);
    note(note::Recycled{replaced});
    stop_workers(replaced, config_.stop_signal, now);
  }
  while (!ailing_.empty() && !ledger_.failed &&
         recycling_.size() + recycled_.size() < config_.health.max_recycling) {
    const WorkerId next = *ailing_.begin();
    const Worker& worker = *find(next);
    note(note::Recycling{next, worker.version, worker.ailment, worker.complaint});
    set_recycling(next, true);
  }
}

// Who serves goes on until its replacement is ready. Who does not serve yet is stopped, and counts
// as no death. An old one goes with its version: an upgrade, or a roll-back, replaces it anyway.
void Pool::on(const event::Replace& event, Instant now) {
  Entry* found = entry(event.worker);
  if (found == nullptr || found->worker.stopping() || !ledger_.respawn || ledger_.failed) {
    return;
  }
  const Worker& worker = found->worker;
  if (worker.state != WorkerState::kReady) {
    stop_workers({worker.id}, config_.stop_signal, now);
  } else if (worker.version == ledger_.version && worker.ailment == Ailment::kNone) {
    ail(*found, Ailment::kAsked, "somebody asked for it", now);
  }
}

// --- flapping -----------------------------------------------------------------------------------

// Deaths of an upgrade's workers are the upgrade's matter.
void Pool::count_flap(Slot slot, Instant now) {
  const FlappingRules& rules = config_.health.flapping;
  if (rules.times == 0 || ledger_.upgrade || !ledger_.respawn) {
    return;
  }
  SlotTrouble& trouble = troubles_[slot];
  trouble.slot = slot;
  slots_changed_.insert(slot);
  if (trouble.first_pause && now - *trouble.first_pause > kForgetRetries) {
    trouble.first_pause.reset();
    trouble.retries = 0;
  }
  std::erase_if(trouble.deaths, [&](Instant death) { return now - death > rules.within; });
  trouble.deaths.push_back(now);
  if (trouble.deaths.size() < rules.times || trouble.paused()) {
    return;
  }
  note::SlotPaused said{slot,
                        static_cast<std::uint32_t>(trouble.deaths.size()),
                        rules.within,
                        std::nullopt,
                        0,
                        rules.retries};
  trouble.deaths.clear();
  trouble.first_pause = trouble.first_pause.value_or(now);
  if (trouble.retries < rules.retries) {
    said.pause = rules.pause;
    said.retry = ++trouble.retries;
    trouble.paused_until = now + rules.pause;
  } else {
    trouble.given_up = true;
  }
  note(said);
  ++paused_;
  free_slots_.erase(slot.value);
}

bool Pool::is_paused(Slot slot) const {
  const auto found = troubles_.find(slot);
  return found != troubles_.end() && found->second.paused();
}

void Pool::resume(SlotTrouble& trouble) {
  trouble.paused_until.reset();
  trouble.given_up = false;
  slots_changed_.insert(trouble.slot);
  --paused_;
  if (trouble.slot.value < slots_.size() && !slots_[trouble.slot.value]) {
    free_slots_.insert(trouble.slot.value);
  }
}

void Pool::resume_slots(Instant now) {
  if (paused_ == 0) {
    return;
  }
  for (auto& [slot, trouble] : troubles_) {
    if (trouble.paused_until && *trouble.paused_until <= now) {
      resume(trouble);
      note(note::SlotResumed{slot});
    }
  }
}

std::optional<Instant> Pool::next_resume() const {
  std::optional<Instant> next;
  if (paused_ > 0) {
    for (const auto& [slot, trouble] : troubles_) {
      if (trouble.paused_until && (!next || *trouble.paused_until < *next)) {
        next = trouble.paused_until;
      }
    }
  }
  return next;
}

// Somebody has done something about it: everything is tried again.
void Pool::forget_troubles() {
  for (auto& [slot, trouble] : troubles_) {
    if (trouble.paused()) {
      resume(trouble);
    }
    slots_changed_.insert(slot);
  }
  troubles_.clear();
}

}  // namespace einhorn::pool
