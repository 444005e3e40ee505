#include "client/pool_model.h"

#include <algorithm>

#include "wire/json.h"

namespace einhorn::client {
namespace {

constexpr std::size_t kMostOutputLines = 60;

std::uint64_t unsigned_of(const wire::Value& map, std::string_view key) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, integer_of(map, key)));
}

std::string json_of(const wire::Value& map, std::string_view key) {
  const wire::Value* value = map.find(key);
  return value == nullptr || value->is_null() ? "" : wire::encode_json(*value);
}

}  // namespace

std::uint64_t PoolModel::ready() const {
  return static_cast<std::uint64_t>(
      std::count_if(workers_.begin(), workers_.end(),
                    [](const auto& entry) { return entry.second.state == "ready"; }));
}

void PoolModel::set_connected(bool connected, std::string error) {
  if (connected && !connected_ && known_) {
    ++counters_.reconnects;
  }
  connected_ = connected;
  error_ = std::move(error);
}

void PoolModel::take(const wire::Value& event, std::string_view line) {
  just_ended_ = false;
  const std::string name = text_of(event, "event");
  const double at = real_of(event, "at");
  if (name == "snapshot") {
    start(event);
    return;
  }
  if (name == "resumed") {
    stream_ = text_of(event, "stream");
    last_ = unsigned_of(event, "after");
    return;
  }
  if (name == "sample") {
    take_sample(event);
    return;
  }
  const std::uint64_t n = unsigned_of(event, "n");
  if (n == 0) {
    return;
  }
  if (known_ && n > last_ + 1) {
    counters_.missed += n - last_ - 1;
  }
  last_ = n;
  ++counters_.events;
  if (name != "pinged") {  // there may be a thousand a second
    if (lines_.size() == kMostLines) {
      lines_.pop_front();
    }
    lines_.emplace_back(line);
  }
  take_event(event, name, at);
}

void PoolModel::start(const wire::Value& event) {
  const std::string stream = text_of(event, "stream");
  if (stream != stream_) {
    // Another pool of the same name: nothing of the last one is its.
    workers_.clear();
    ended_.clear();
    upgrade_.reset();
    stream_ = stream;
  }
  counters_.missed += unsigned_of(event, "missed");
  known_ = true;
  last_ = unsigned_of(event, "after");
  if (const wire::Value* state = event.find("state")) {
    take_state(*state);
  }
}

void PoolModel::take_state(const wire::Value& state) {
  number_ = unsigned_of(state, "number");
  version_ = integer_of(state, "version");
  master_pid_ = integer_of(state, "master");
  guard_pid_ = integer_of(state, "guard");
  failed_ = flag_of(state, "failed");
  stopping_ = state.find("respawn") != nullptr && !flag_of(state, "respawn");
  std::map<std::uint64_t, WorkerView> before = std::exchange(workers_, {});
  const wire::Value* workers = state.find("workers");
  if (workers != nullptr && workers->as_list() != nullptr) {
    for (const wire::Value& each : *workers->as_list()) {
      WorkerView worker;
      worker.epoch = unsigned_of(each, "epoch");
      worker.slot = integer_of(each, "index");
      worker.pid = integer_of(each, "pid");
      worker.version = integer_of(each, "version");
      worker.state = text_of(each, "state");
      if (worker.state == "spawning") {
        worker.state = "starting";
      }
      worker.spawned_at = time_of(each, "started_at");
      worker.ready_at = time_of(each, "acked_at");
      worker.stopping_at = worker.state == "stopping" ? time_of(each, "last_signaled_at") : 0;
      worker.pinged_at = time_of(each, "pinged_at");
      worker.request_id = json_of(each, "pinged_request_id");
      const wire::Value* busy = each.find("busy");
      worker.busy = busy != nullptr && busy->as_list() != nullptr && !busy->as_list()->empty();
      worker.requests = unsigned_of(each, "requests");
      worker.ailment = text_of(each, "complaint");
      worker.status_text = text_of(each, "status");
      worker.rss = unsigned_of(each, "rss");
      if (const auto old = before.find(worker.epoch); old != before.end()) {
        worker.cpu = old->second.cpu;
        worker.cpu_percent = old->second.cpu_percent;
        worker.sampled_at = old->second.sampled_at;
      }
      workers_[worker.epoch] = std::move(worker);
    }
  }
  const wire::Value* upgrade = state.find("upgrade");
  if (upgrade != nullptr && upgrade->as_map() != nullptr) {
    if (!upgrade_ || !upgrade_->outcome.empty()) {
      upgrade_ = UpgradeView{integer_of(*upgrade, "from"),
                             integer_of(*upgrade, "to"),
                             flag_of(*upgrade, "smooth") ? "smooth" : "fleet",
                             0,
                             0,
                             "",
                             ""};
    }
  } else if (upgrade_ && upgrade_->outcome.empty()) {
    upgrade_.reset();  // its end was missed
  }
}

void PoolModel::take_sample(const wire::Value& event) {
  PoolSample sample;
  sample.at = real_of(event, "at");
  sample.ready = unsigned_of(event, "ready");
  sample.number = unsigned_of(event, "number");
  const wire::Value* workers = event.find("workers");
  if (workers != nullptr && workers->as_list() != nullptr) {
    for (const wire::Value& each : *workers->as_list()) {
      WorkerView* worker = worker_of(each);
      if (worker == nullptr) {
        continue;
      }
      worker->rss = unsigned_of(each, "rss");
      const double cpu = real_of(each, "cpu");
      if (worker->sampled_at > 0 && sample.at > worker->sampled_at) {
        worker->cpu_percent =
            std::max(0.0, 100 * (cpu - worker->cpu) / (sample.at - worker->sampled_at));
      }
      worker->cpu = cpu;
      worker->sampled_at = sample.at;
      sample.rss += worker->rss;
      sample.cpu_percent += worker->cpu_percent;
    }
  }
  const wire::Value* sockets = event.find("sockets");
  if (sockets != nullptr && sockets->as_list() != nullptr) {
    for (const wire::Value& each : *sockets->as_list()) {
      sample.waiting += unsigned_of(each, "waiting");
    }
  }
  if (const wire::Value* master = event.find("master")) {
    sizes_.master_rss = unsigned_of(*master, "rss");
    sizes_.master_cpu = real_of(*master, "cpu");
  }
  if (const wire::Value* guard = event.find("guard")) {
    sizes_.guard_rss = unsigned_of(*guard, "rss");
  }
  if (requests_ > 0 && !samples_.empty() && sample.at > samples_.back().at) {
    sample.requests =
        static_cast<double>(requests_ - requests_sampled_) / (sample.at - samples_.back().at);
  }
  requests_sampled_ = requests_;
  if (samples_.size() == kMostSamples) {
    samples_.pop_front();
  }
  samples_.push_back(sample);
}

WorkerView* PoolModel::worker_of(const wire::Value& event) {
  const auto found = workers_.find(unsigned_of(event, "epoch"));
  return found == workers_.end() ? nullptr : &found->second;
}

void PoolModel::take_event(const wire::Value& event, std::string_view name, double at) {
  if (name == "number_changed" || name == "scaled") {
    number_ = unsigned_of(event, "to");
  } else if (name == "master_started") {
    ++counters_.master_starts;
    master_pid_ = integer_of(event, "pid");
  } else if (name == "guard_lost") {
    guard_pid_ = 0;
  } else if (name == "command") {
    ++counters_.commands;
  } else if (name == "gave_up") {
    failed_ = true;
  } else if (name == "recovered") {
    failed_ = false;
  } else if (name == "stopping") {
    stopping_ = true;
  } else if (name == "signaling" || name == "recycled") {
    // Somebody of us sent it, so that their ends are no crashes; a signal that only passes
    // through (USR1, HUP) changes nothing that can be seen.
    const wire::Value* workers = event.find("workers");
    const std::string signal = text_of(event, "signal");
    if (workers != nullptr && workers->as_list() != nullptr && signal != "USR1" &&
        signal != "HUP") {
      for (const wire::Value& epoch : *workers->as_list()) {
        const auto found = epoch.as_integer() != nullptr
                               ? workers_.find(static_cast<std::uint64_t>(*epoch.as_integer()))
                               : workers_.end();
        if (found != workers_.end() && found->second.stopping_at == 0) {
          found->second.stopping_at = at;
          found->second.state = "stopping";
        }
      }
    }
  } else {
    take_upgrade_event(event, name, at);
    take_worker_event(event, name, at);
  }
}

void PoolModel::take_worker_event(const wire::Value& event, std::string_view name, double at) {
  if (name == "spawned") {
    ++counters_.spawned;
    WorkerView worker;
    worker.epoch = unsigned_of(event, "epoch");
    worker.slot = integer_of(event, "slot");
    worker.pid = integer_of(event, "pid");
    worker.version = integer_of(event, "version");
    worker.state = "starting";
    worker.spawned_at = at;
    workers_[worker.epoch] = std::move(worker);
  } else if (name == "spawn_failed") {
    ++counters_.spawn_failures;
    workers_.erase(unsigned_of(event, "epoch"));
  } else if (name == "exited") {
    end(event, at);
  } else if (name == "last_output" || name == "stack") {
    take_lines(event);
  } else if (WorkerView* worker = worker_of(event)) {
    if (name == "ready") {
      ++counters_.acks;
      counters_.ack_seconds += real_of(event, "after");
      worker->state = worker->stopping_at > 0 ? "stopping" : "ready";
      worker->ready_at = at;
    } else if (name == "pinged") {
      ++counters_.pings;
      // A request is one that begins, or another id than the last (docs/limits.md).
      const std::string request = json_of(event, "request_id");
      const bool tells = event.find("busy") != nullptr;
      const bool other = !request.empty() && request != worker->request_id;
      const bool is_new = tells ? flag_of(event, "busy") : other;
      worker->requests += is_new ? 1U : 0U;
      requests_ += is_new ? 1U : 0U;
      worker->pinged_at = at;
      worker->request_id = request.empty() ? worker->request_id : request;
      worker->busy = tells ? flag_of(event, "busy") : worker->busy;
    } else if (name == "status") {
      worker->status_text = text_of(event, "text");
    } else if (name == "ack_missed") {
      ++counters_.acks_missed;
    } else if (name == "ailing" || name == "condemned") {
      worker->ailment = text_of(event, "reason");
    }
  }
}

void PoolModel::take_upgrade_event(const wire::Value& event, std::string_view name, double at) {
  if (name == "upgrade_started" || name == "rollback_started") {
    version_ = integer_of(event, "to");
    // A roll-back has the reason of the upgrade that failed.
    const bool back = name == "rollback_started";
    const bool of_failure = back && upgrade_ && upgrade_->outcome == "failed" &&
                            upgrade_->to == integer_of(event, "from");
    const std::string reason = of_failure ? upgrade_->reason : "";
    upgrade_ = UpgradeView{integer_of(event, "from"),
                           integer_of(event, "to"),
                           back ? "rollback" : text_of(event, "kind"),
                           at,
                           0,
                           "",
                           reason};
    return;
  }
  const bool done = name == "upgraded" || name == "rolled_back";
  if (done || name == "upgrade_failed" || name == "rollback_incomplete") {
    if (done) {
      version_ = integer_of(event, "version");
    }
    if (name == "upgraded") {
      ++counters_.upgrades_done;
    } else if (name == "rolled_back") {
      ++counters_.rollbacks;
    } else {
      ++counters_.upgrades_failed;
    }
    if (!upgrade_) {
      upgrade_ = UpgradeView{};
      upgrade_->to = version_;
    }
    upgrade_->ended_at = at;
    upgrade_->outcome = name == "upgraded"      ? "upgraded"
                        : name == "rolled_back" ? "rolled_back"
                                                : "failed";
    if (!done) {
      upgrade_->reason = text_of(event, "reason");
    }
  }
}

// Of a worker that is dead already, or of one that hangs.
void PoolModel::take_lines(const wire::Value& event) {
  WorkerView* worker = worker_of(event);
  const std::uint64_t epoch = unsigned_of(event, "epoch");
  const std::size_t looked = std::min<std::size_t>(ended_.size(), 200);
  for (auto it = ended_.rbegin();
       worker == nullptr && it != ended_.rbegin() + static_cast<std::ptrdiff_t>(looked); ++it) {
    worker = it->epoch == epoch ? &*it : nullptr;
  }
  const wire::Value* lines = event.find("lines");
  if (worker == nullptr || lines == nullptr || lines->as_list() == nullptr) {
    return;
  }
  std::vector<std::string>& kept =
      text_of(event, "event") == "stack" ? worker->stack : worker->lines;
  for (const wire::Value& line : *lines->as_list()) {
    if (line.as_string() != nullptr && kept.size() < kMostOutputLines) {
      kept.push_back(line.as_string()->substr(0, 500));
    }
  }
}

void PoolModel::end(const wire::Value& event, double at) {
  const auto found = workers_.find(unsigned_of(event, "epoch"));
  WorkerView worker;
  if (found != workers_.end()) {
    worker = std::move(found->second);
    workers_.erase(found);
  } else {
    worker.epoch = unsigned_of(event, "epoch");
    worker.slot = integer_of(event, "slot");
    worker.pid = integer_of(event, "pid");
    worker.version = integer_of(event, "version");
    worker.spawned_at = at - real_of(event, "lived");
  }
  worker.state = "ended";
  worker.ended_at = at;
  worker.how = text_of(event, "how");
  worker.stage = text_of(event, "stage");
  worker.killed_by = text_of(event, "signal");
  if (event.find("status") != nullptr) {
    worker.status = static_cast<int>(integer_of(event, "status"));
  }
  worker.was_told = flag_of(event, "stopping");
  ++(worker.crashed() ? counters_.crashed : counters_.stopped);
  if (ended_.size() == kMostEnded) {
    ended_.pop_front();
  }
  ended_.push_back(std::move(worker));
  just_ended_ = true;
}

}  // namespace einhorn::client
