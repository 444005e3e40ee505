#include "agent/metrics.h"

#include <array>
#include <charconv>
#include <functional>

namespace einhorn::agent {
namespace {

std::string escape(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    if (letter == '\\' || letter == '"') {
      out += '\\';
      out += letter;
    } else if (letter == '\n') {
      out += "\\n";
    } else {
      out += letter;
    }
  }
  return out;
}

std::string number(double value) {
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), end.ptr};
}

class Writer {
 public:
  explicit Writer(bool open_metrics) : open_(open_metrics) {}

  // `name` without `_total`; its samples follow.
  void family(std::string_view name, std::string_view type, std::string_view unit,
              std::string_view help) {
    name_ = name;
    suffix_ = type == "counter" ? "_total" : "";
    const std::string shown = open_ ? name_ : name_ + suffix_;
    out_ += "# HELP " + shown + " " + std::string(help) + "\n";
    out_ += "# TYPE " + shown + " " + std::string(type) + "\n";
    if (open_ && !unit.empty()) {
      out_ += "# UNIT " + shown + " " + std::string(unit) + "\n";
    }
  }
  void sample(const std::string& labels, double value, std::string_view ending = "") {
    out_ += name_;
    out_ += ending.empty() ? std::string_view(suffix_) : ending;
    if (!labels.empty()) {
      out_ += "{" + labels + "}";
    }
    out_ += " " + number(value) + "\n";
  }
  std::string take() {
    if (open_) {
      out_ += "# EOF\n";
    }
    return std::move(out_);
  }

 private:
  bool open_;
  std::string out_;
  std::string name_;
  std::string suffix_;
};

std::string label(std::string_view name, std::string_view value) {
  return std::string(name) + "=\"" + escape(value) + "\"";
}

using Each = std::function<void(const PoolModel&, const std::string& labels)>;

void each_pool(const Fleet& fleet, const Each& visit) {
  for (const auto& [name, feed] : fleet.feeds()) {
    visit(feed->model(), label("pool", name));
  }
}

void each_known(const Fleet& fleet, const Each& visit) {
  each_pool(fleet, [&visit](const PoolModel& pool, const std::string& labels) {
    if (pool.connected() && pool.known()) {
      visit(pool, labels);
    }
  });
}

void write_pools(Writer& out, const Fleet& fleet) {
  const auto gauge = [&](std::string_view name, std::string_view unit, std::string_view help,
                         const std::function<double(const PoolModel&)>& value) {
    out.family(name, "gauge", unit, help);
    each_known(fleet, [&](const PoolModel& pool, const std::string& labels) {
      out.sample(labels, value(pool));
    });
  };
  out.family("einhorn_up", "gauge", "", "Whether the agent is connected to the pool's master.");
  each_pool(fleet, [&](const PoolModel& pool, const std::string& labels) {
    out.sample(labels, pool.connected() ? 1 : 0);
  });
  gauge("einhorn_workers_wanted", "", "Workers that are wanted.",
        [](const PoolModel& pool) { return static_cast<double>(pool.number()); });
  out.family("einhorn_workers", "gauge", "", "Living workers by state.");
  each_known(fleet, [&](const PoolModel& pool, const std::string& labels) {
    for (const char* state : {"starting", "ready", "stopping"}) {
      double count = 0;
      for (const auto& [epoch, worker] : pool.workers()) {
        count += worker.state == state ? 1 : 0;
      }
      out.sample(labels + "," + label("state", state), count);
    }
  });
  gauge("einhorn_version", "", "The version that new workers get; it counts upgrades.",
        [](const PoolModel& pool) { return static_cast<double>(pool.version()); });
  gauge("einhorn_old_workers", "", "Living workers of other versions than that.",
        [](const PoolModel& pool) {
          double count = 0;
          for (const auto& [epoch, worker] : pool.workers()) {
            count += worker.version != pool.version() ? 1 : 0;
          }
          return count;
        });
  gauge("einhorn_upgrading", "", "Whether an upgrade or roll-back is under way.",
        [](const PoolModel& pool) {
          return pool.upgrade() && pool.upgrade()->outcome.empty() ? 1.0 : 0.0;
        });
  gauge("einhorn_failed", "", "Whether the pool has given up starting workers.",
        [](const PoolModel& pool) { return pool.failed() ? 1.0 : 0.0; });
  gauge("einhorn_stopping", "", "Whether the pool goes down.",
        [](const PoolModel& pool) { return pool.stopping() ? 1.0 : 0.0; });
  gauge("einhorn_accept_queue_connections", "",
        "Connections in all shared sockets that no worker has accepted yet.",
        [](const PoolModel& pool) {
          return pool.samples().empty() ? 0.0 : static_cast<double>(pool.samples().back().waiting);
        });
  gauge("einhorn_master_resident_memory_bytes", "bytes", "Resident memory of the master.",
        [](const PoolModel& pool) { return static_cast<double>(pool.sizes().master_rss); });
  gauge("einhorn_guard_resident_memory_bytes", "bytes", "Resident memory of the guard.",
        [](const PoolModel& pool) { return static_cast<double>(pool.sizes().guard_rss); });
}

void write_counters(Writer& out, const Fleet& fleet) {
  const auto counter = [&](std::string_view name, std::string_view help,
                           std::uint64_t PoolCounters::*value) {
    out.family(name, "counter", "", help);
    each_pool(fleet, [&](const PoolModel& pool, const std::string& labels) {
      out.sample(labels, static_cast<double>(pool.counters().*value));
    });
  };
  counter("einhorn_workers_spawned", "Workers started since the agent did.",
          &PoolCounters::spawned);
  counter("einhorn_worker_spawn_failures", "Workers that could not be started.",
          &PoolCounters::spawn_failures);
  counter("einhorn_worker_pings", "Pings of workers.", &PoolCounters::pings);
  counter("einhorn_worker_acks_missed", "Workers that did not ACK in time.",
          &PoolCounters::acks_missed);
  counter("einhorn_commands", "Commands that may change something.", &PoolCounters::commands);
  counter("einhorn_master_starts", "Masters that began to act.", &PoolCounters::master_starts);
  counter("einhorn_agent_events", "Events that the agent took in.", &PoolCounters::events);
  counter("einhorn_agent_events_missed", "Events that it knows it missed.", &PoolCounters::missed);
  counter("einhorn_agent_reconnects", "Times that it connected again.", &PoolCounters::reconnects);
  out.family("einhorn_worker_exits", "counter", "",
             "Workers that ended, by themselves (crashed) or because they were told to (stopped).");
  each_pool(fleet, [&](const PoolModel& pool, const std::string& labels) {
    out.sample(labels + "," + label("reason", "crashed"),
               static_cast<double>(pool.counters().crashed));
    out.sample(labels + "," + label("reason", "stopped"),
               static_cast<double>(pool.counters().stopped));
  });
  out.family("einhorn_upgrades", "counter", "", "Upgrades that ended, by how.");
  each_pool(fleet, [&](const PoolModel& pool, const std::string& labels) {
    const PoolCounters& counters = pool.counters();
    out.sample(labels + "," + label("outcome", "upgraded"),
               static_cast<double>(counters.upgrades_done));
    out.sample(labels + "," + label("outcome", "failed"),
               static_cast<double>(counters.upgrades_failed));
    out.sample(labels + "," + label("outcome", "rolled_back"),
               static_cast<double>(counters.rollbacks));
  });
  out.family("einhorn_worker_ack_seconds", "summary", "seconds",
             "From a worker's start to its ACK.");
  each_pool(fleet, [&](const PoolModel& pool, const std::string& labels) {
    out.sample(labels, pool.counters().ack_seconds, "_sum");
    out.sample(labels, static_cast<double>(pool.counters().acks), "_count");
  });
}

void write_workers(Writer& out, const Fleet& fleet) {
  const auto each = [&](const std::function<void(const WorkerView&, const std::string&)>& visit) {
    each_known(fleet, [&](const PoolModel& pool, const std::string& labels) {
      for (const auto& [epoch, worker] : pool.workers()) {
        visit(worker, labels + "," + label("slot", std::to_string(worker.slot)));
      }
    });
  };
  out.family("einhorn_worker_resident_memory_bytes", "gauge", "bytes",
             "Resident memory of each worker.");
  each([&](const WorkerView& worker, const std::string& labels) {
    out.sample(labels, static_cast<double>(worker.rss));
  });
  out.family("einhorn_worker_cpu_seconds", "counter", "seconds", "CPU time of each worker.");
  each(
      [&](const WorkerView& worker, const std::string& labels) { out.sample(labels, worker.cpu); });
  out.family("einhorn_worker_start_time_seconds", "gauge", "seconds",
             "When each worker was started, since 1970.");
  each([&](const WorkerView& worker, const std::string& labels) {
    out.sample(labels, worker.spawned_at);
  });
}

}  // namespace

std::string metrics_text(const Fleet& fleet, bool open_metrics) {
  Writer out(open_metrics);
  out.family("einhorn_agent_build_info", "gauge", "", "The agent's version.");
  out.sample(label("version", EINHORN_VERSION), 1);
  write_pools(out, fleet);
  write_counters(out, fleet);
  write_workers(out, fleet);
  return out.take();
}

}  // namespace einhorn::agent
