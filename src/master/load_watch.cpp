#include "master/load_watch.h"

#include <utility>

namespace einhorn::master {

std::optional<Instant> LoadWatch::next_deadline(const pool::Pool& pool) const {
  if (!pool.wants_load()) {
    return std::nullopt;
  }
  return looked_at_ ? *looked_at_ + kEvery : Instant{};
}

std::optional<pool::event::LoadSeen> LoadWatch::look(const pool::Pool& pool, const Roster& roster,
                                                     const std::map<std::uint32_t, int>& listeners,
                                                     Instant now) {
  const std::optional<Instant> due = next_deadline(pool);
  if (!due || now < *due) {
    return std::nullopt;
  }
  looked_at_ = now;
  pool::event::LoadSeen seen;
  for (const auto& [index, fd] : listeners) {
    if (const std::optional<os::AcceptQueue> queue = kernel_.accept_queue(fd)) {
      seen.queued += queue->waiting;
    }
  }
  if (!cpu_at_ || now - *cpu_at_ >= kCpuEvery) {
    seen.cores = cores(pool, roster, now);
  }
  return seen;
}

// Only of workers that were there the last time too.
std::optional<double> LoadWatch::cores(const pool::Pool& pool, const Roster& roster, Instant now) {
  std::map<Epoch, Duration> before = std::exchange(cpu_, {});
  const std::optional<Instant> since = std::exchange(cpu_at_, now);
  Duration used{0};
  bool any = false;
  for (const pool::Worker* worker : pool.workers()) {
    if (worker->state != pool::WorkerState::kReady) {
      continue;
    }
    const std::optional<Duration> cpu = kernel_.cpu_time_of(roster.pid_of(worker->id));
    if (!cpu) {
      continue;
    }
    cpu_[worker->id.epoch] = *cpu;
    if (const auto found = before.find(worker->id.epoch); found != before.end()) {
      used += *cpu - found->second;
      any = true;
    }
  }
  if (!any || !since || *since == now) {
    return std::nullopt;
  }
  return to_seconds(used) / to_seconds(now - *since);
}

}  // namespace einhorn::master
