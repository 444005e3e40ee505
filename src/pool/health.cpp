// Heartbeats, slow requests, ages, probes and samples: what is found of a worker by them, and how
// one that hangs is taken out; see health.h.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/health_limits.h"
#include "pool/pool.h"

namespace einhorn::pool {
namespace {

// After a pause of the master itself nobody is blamed for what could not be heard.
constexpr Duration kRequestGrace = std::chrono::seconds{1};
// What an examination may take; the stop signal comes then at the latest.
constexpr Duration kExamineWithin = std::chrono::milliseconds{2500};
constexpr Duration kDumpWithin = std::chrono::milliseconds{1000};
// A probe whose answer is lost is begun again.
constexpr Duration kProbeGrace = std::chrono::seconds{5};

bool named(const std::string& request_id) { return !request_id.empty() && request_id != "null"; }

std::string text_of(Duration duration) {
  const auto tenths = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count() / 100;
  std::string text = std::to_string(tenths / 10);
  if (tenths % 10 != 0) {
    text += "." + std::to_string(tenths % 10);
  }
  return text + "s";
}

std::string of_request(const std::string& request_id) {
  return named(request_id) ? " " + request_id : "";
}

}  // namespace

// --- what a worker says -------------------------------------------------------------------------

void Pool::on(const event::Pinged& event, Instant now) {
  Entry* pinged = entry(event.worker);
  if (pinged == nullptr) {
    return;
  }
  Worker& worker = pinged->worker;
  const std::string& id = event.request_id;
  const bool is_new = named(id) && id != worker.last_request_id;
  worker.pinged_at = now;
  worker.pinged_request_id = id;
  if (named(id)) {
    worker.last_request_id = id;
  }
  touch(*pinged);
  if (event.busy) {
    note_request(*pinged, id, *event.busy, now);
  } else if (is_new) {
    ++worker.requests;
  }
  if (event.hung && !worker.stopping() && worker.state != WorkerState::kSpawning) {
    condemn(*pinged, Ailment::kTrigger, "it says that it hangs (WATCHDOG=trigger)", false, now);
    return;
  }
  const std::optional<std::uint64_t>& most = config_.health.max_requests;
  if (most && worker.state == WorkerState::kReady && worker.ailment == Ailment::kNone &&
      worker.requests >= *most - jitter_of(worker.id.epoch, *most, config_.health.jitter_percent)) {
    ail(*pinged, Ailment::kRequests, std::to_string(worker.requests) + " requests", now);
  }
  if (!worker.stopping()) {
    schedule(*pinged);
  }
}

// Several at a time, each with its id, of a worker that has threads. Without an id there is one.
// Each ping has a connection of its own, so an end may be heard before its beginning.
void Pool::note_request(Entry& entry, const std::string& id, bool busy, Instant now) {
  Worker& worker = entry.worker;
  std::vector<std::string>& early = entry.vitals.ended_early;
  const auto found = std::ranges::find(worker.busy, id, &BusyRequest::id);
  if (!busy) {
    if (found != worker.busy.end()) {
      worker.busy.erase(found);
    } else if (!named(id) || (worker.busy.size() == 1 && !named(worker.busy.front().id))) {
      worker.busy.clear();
    } else {
      early.push_back(id);
      if (early.size() > limits::kMaxEndedEarly) {
        early.erase(early.begin());
      }
    }
    return;
  }
  if (const auto ended = std::ranges::find(early, id); ended != early.end()) {
    early.erase(ended);
    ++worker.requests;
    return;
  }
  if (found != worker.busy.end() && named(id)) {
    return;  // still the same one
  }
  ++worker.requests;
  if (found != worker.busy.end()) {
    found->since = now;  // the end of the one before was not said
    return;
  }
  if (worker.busy.size() >= limits::kMaxBusyRequests) {
    worker.busy.erase(worker.busy.begin() + 1);  // the oldest one is what matters
  }
  worker.busy.push_back({id, now});
}

// --- what is due --------------------------------------------------------------------------------

std::optional<Instant> Pool::silent_at(const Worker& worker) const {
  if (!config_.health.ping_timeout || !worker.pinged_at) {
    return std::nullopt;
  }
  return std::max(*worker.pinged_at, listening_since_) + *config_.health.ping_timeout;
}

std::optional<Instant> Pool::slow_at(const Worker& worker) const {
  if (!config_.health.request_timeout || worker.busy.empty()) {
    return std::nullopt;
  }
  return std::max(worker.busy.front().since + *config_.health.request_timeout,
                  listening_since_ + kRequestGrace);
}

std::optional<Instant> Pool::old_at(const Worker& worker) const {
  const std::optional<Duration>& most = config_.health.max_age;
  if (!most || worker.state != WorkerState::kReady || worker.ailment != Ailment::kNone) {
    return std::nullopt;
  }
  const auto whole = static_cast<std::uint64_t>(most->count());
  const std::uint64_t less = jitter_of(worker.id.epoch, whole, config_.health.jitter_percent);
  return worker.spawned_at + *most - Duration{static_cast<std::int64_t>(less)};
}

std::optional<Instant> Pool::probe_due(Entry& entry) const {
  const ProbeRules& rules = config_.health.probe;
  const Worker& worker = entry.worker;
  if (!rules.on || worker.state != WorkerState::kReady) {
    return std::nullopt;
  }
  if (entry.vitals.probe_sent_at) {
    return *entry.vitals.probe_sent_at + rules.timeout + kProbeGrace;
  }
  if (!entry.vitals.probe_at) {
    // Spread, so that they are not all probed at once.
    const auto whole = static_cast<std::uint64_t>(rules.interval.count());
    const Duration first{static_cast<std::int64_t>(whole - jitter_of(worker.id.epoch, whole, 50))};
    entry.vitals.probe_at =
        std::max(worker.acked_at.value_or(worker.spawned_at), listening_since_) + first;
  }
  return entry.vitals.probe_at;
}

std::optional<Instant> Pool::health_due(Entry& entry) const {
  if (!config_.health.watches()) {
    return std::nullopt;
  }
  std::optional<Instant> next;
  for (const std::optional<Instant> at :
       {silent_at(entry.worker), slow_at(entry.worker), old_at(entry.worker), probe_due(entry)}) {
    if (at && (!next || *at < *next)) {
      next = at;
    }
  }
  return next;
}

// Of a worker that is starting or ready. False: it is stopping now.
bool Pool::check_health(Entry& entry, Instant now) {
  Worker& worker = entry.worker;
  const HealthRules& rules = config_.health;
  if (const auto at = silent_at(worker); at && *at <= now) {
    condemn(entry, Ailment::kSilent, "no ping for " + text_of(now - *worker.pinged_at), false, now);
    return false;
  }
  if (const auto at = slow_at(worker); at && *at <= now) {
    const BusyRequest slow = worker.busy.front();
    worker.last_request_id = named(slow.id) ? slow.id : worker.last_request_id;
    condemn(entry, Ailment::kSlow,
            "busy with request" + of_request(slow.id) + " for " + text_of(now - slow.since), false,
            now);
    return false;
  }
  if (const auto at = old_at(worker); at && *at <= now) {
    ail(entry, Ailment::kAge, "it is " + text_of(now - worker.spawned_at) + " old", now);
  }
  if (const auto at = probe_due(entry); at && *at <= now) {
    if (std::exchange(entry.vitals.probe_sent_at, std::nullopt)) {
      entry.vitals.probe_at = now + rules.probe.interval;  // nobody answered for the prober
    } else {
      entry.vitals.probe_sent_at = now;
      actions_.emplace_back(TakeProbe{worker.id});
    }
  }
  return true;
}

// --- probes -------------------------------------------------------------------------------------

void Pool::on(const event::Probed& event, Instant now) {
  Entry* probed = entry(event.worker);
  if (probed == nullptr || probed->worker.state != WorkerState::kReady ||
      !config_.health.probe.on || !probed->vitals.probe_sent_at) {
    return;
  }
  const ProbeRules& rules = config_.health.probe;
  probed->vitals.probe_sent_at.reset();
  probed->vitals.probe_at = now + rules.interval;
  if (event.well) {
    probed->vitals.probe_failures = 0;
  } else {
    const std::uint32_t failures = ++probed->vitals.probe_failures;
    note(note::ProbeFailed{event.worker, event.detail, failures, rules.failures});
    if (failures >= rules.failures) {
      condemn(*probed, Ailment::kProbe,
              std::to_string(failures) + " probes in a row failed, the last one: " + event.detail,
              false, now);
      return;
    }
  }
  schedule(*probed);
}

// --- samples ------------------------------------------------------------------------------------

// A part of the workers a time: whoever else has something to say is not kept waiting.
void Pool::take_samples(Instant now) {
  if (!sample_at_ || *sample_at_ > now) {
    return;
  }
  TakeSamples wanted;
  while (sample_cursor_ < slots_.size() && wanted.workers.size() < limits::kMaxSamplesPerTurn) {
    const auto& candidate = slots_[sample_cursor_++];
    if (candidate && candidate->worker.state != WorkerState::kSpawning) {
      wanted.workers.push_back(candidate->worker.id);
    }
  }
  if (sample_cursor_ >= slots_.size()) {
    sample_cursor_ = 0;
    sample_at_ = std::max(*sample_at_ + config_.health.sample_interval, now + kRequestGrace / 10);
  }
  if (!wanted.workers.empty()) {
    actions_.emplace_back(std::move(wanted));
  }
}

void Pool::plan_samples(Instant now) {
  if (!config_.health.measures() || alive_ == 0) {
    sample_at_.reset();
    sample_cursor_ = 0;
  } else if (!sample_at_) {
    sample_at_ = now + config_.health.sample_interval;
  }
}

void Pool::on(const event::Sampled& event, Instant now) {
  for (const Sample& sample : event.samples) {
    Entry* sampled = entry(sample.worker);
    if (sampled == nullptr || sampled->worker.state == WorkerState::kSpawning) {
      continue;
    }
    std::optional<std::uint64_t> cpu;
    // What its start took is nobody's concern.
    if (sample.cpu && config_.health.of(Measure::kCpu).set() &&
        sampled->worker.state == WorkerState::kReady) {
      cpu = sampled->vitals.cpu_percent(*sample.cpu, config_.health.cpu_window, now);
    }
    const std::array<std::pair<Measure, std::optional<std::uint64_t>>, kMeasures> values = {{
        {Measure::kMemory, sample.memory},
        {Measure::kPss, sample.pss},
        {Measure::kCpu, cpu},
        {Measure::kDescriptors, sample.descriptors},
        {Measure::kThreads, sample.threads},
    }};
    for (const auto& [measure, value] : values) {
      if (value && !judge(*sampled, measure, *value, now)) {
        break;
      }
    }
  }
}

// False: nothing more has to be known of it.
bool Pool::judge(Entry& entry, Measure measure, std::uint64_t value, Instant now) {
  const Limit& limit = config_.health.of(measure);
  Worker& worker = entry.worker;
  const std::string shown =
      std::string(name(ailment_of(measure))) + " " + measure_text(measure, value) + " is over ";
  if (limit.hard && value > *limit.hard) {
    if (!worker.signaled.has(SIGKILL)) {
      condemn(entry, ailment_of(measure),
              shown + "the hard limit of " + measure_text(measure, *limit.hard), true, now);
    }
    return false;
  }
  if (!limit.soft || worker.state != WorkerState::kReady) {
    return true;
  }
  if (!entry.vitals.above(measure, limit, value) || worker.ailment != Ailment::kNone) {
    return true;
  }
  ail(entry, ailment_of(measure),
      shown + measure_text(measure, *limit.soft) + " in " + std::to_string(limit.times) + " of " +
          std::to_string(limit.samples) + " samples",
      now);
  return true;
}

// --- what is done about it ----------------------------------------------------------------------

void Pool::ail(Entry& entry, Ailment ailment, std::string complaint, Instant now) {
  Worker& worker = entry.worker;
  worker.ailment = ailment;
  worker.complaint = std::move(complaint);
  worker.ailing_since = now;
  touch(entry);
  file(entry);
  note(note::Ailing{worker.id, worker.version, worker.ailment, worker.complaint});
}

// From here on it does not count: the pool is short of a worker, and settles that in this very
// step. A death as any other one, also for an upgrade, back-off and flapping.
void Pool::condemn(Entry& entry, Ailment ailment, std::string complaint, bool at_once,
                   Instant now) {
  Worker& worker = entry.worker;
  const bool was_stopping = worker.stopping();
  const bool before_ack = !worker.acked();
  worker.ailment = ailment;
  worker.complaint = std::move(complaint);
  worker.ailing_since = now;
  worker.condemned = true;
  worker.examining = !at_once;
  worker.recycling = worker.recycling && was_stopping;
  worker.state = WorkerState::kStopping;
  place(entry);
  touch(entry);
  const Worker found = worker;
  note(note::Condemned{worker.id, worker.version, worker.ailment, worker.complaint,
                       worker.last_request_id, at_once});
  if (at_once) {
    end_hook(worker);
    worker.signaled.add(SIGKILL);
    worker.last_signaled_at = now;
    actions_.emplace_back(SendSignal{worker.id, SIGKILL, true});
  } else {
    actions_.emplace_back(Examine{worker.id});
  }
  schedule(entry);
  if (was_stopping) {
    return;
  }
  ++ledger_.deaths;
  ledger_dirty_ = true;
  if (before_ack) {
    count_death_before_ack();
  } else {
    count_death_after_ack(found, now);
  }
  count_flap(found.id.slot, now);
  count_upgrade_failure(found, "was taken out: " + found.complaint, now);
}

std::optional<Instant> Pool::examined_by(const Worker& worker) const {
  return worker.ailing_since.value_or(Instant{}) + kExamineWithin +
         (config_.health.dump_signal != 0 ? kDumpWithin : Duration::zero());
}

void Pool::on(const event::Examined& event, Instant now) {
  Entry* examined = entry(event.worker);
  if (examined != nullptr && examined->worker.examining) {
    stop_workers({event.worker}, config_.stop_signal, now);
  }
}

// The clock went on without us: the machine or the master was stopped, or this is a new master.
void Pool::listen_anew(Instant now) {
  listening_since_ = now;
  for (auto& entry : slots_) {
    if (entry) {
      schedule(*entry);
    }
  }
}

}  // namespace einhorn::pool
