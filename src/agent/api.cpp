#include "agent/api.h"

#include <cmath>

#include "wire/json_line.h"

namespace einhorn::agent {
namespace {

Duration seconds(double value) { return from_seconds(value); }

void write_time(wire::JsonLine& line, std::string_view key, double at) {
  if (at > 0) {
    line.field(key, seconds(at));
  }
}

void write_lines(wire::JsonLine& line, std::string_view key,
                 const std::vector<std::string>& lines) {
  if (lines.empty()) {
    return;
  }
  line.open_list(key);
  for (const std::string& each : lines) {
    line.element(each);
  }
  line.close_list();
}

void write_worker(wire::JsonLine& line, const WorkerView& worker) {
  line.open_object();
  line.field("epoch", worker.epoch).field("slot", worker.slot).field("pid", worker.pid);
  line.field("version", worker.version).field("state", worker.state);
  write_time(line, "spawned_at", worker.spawned_at);
  write_time(line, "ready_at", worker.ready_at);
  write_time(line, "stopping_at", worker.stopping_at);
  if (worker.ended_at > 0) {
    write_time(line, "ended_at", worker.ended_at);
    line.field("how", worker.how).field("stage", worker.stage);
    line.field("crashed", worker.crashed());
    if (worker.status) {
      line.field("status", *worker.status);
    }
    if (!worker.killed_by.empty()) {
      line.field("signal", worker.killed_by);
    }
    write_lines(line, "lines", worker.lines);
  } else {
    line.field("rss", worker.rss).field("cpu", seconds(worker.cpu));
    line.field("cpu_percent", seconds(worker.cpu_percent));
    if (!worker.ailment.empty()) {
      line.field("ailment", worker.ailment);
    }
  }
  write_time(line, "pinged_at", worker.pinged_at);
  if (!worker.request_id.empty()) {
    line.json("request_id", worker.request_id);
  }
  if (!worker.status_text.empty()) {
    line.field("status_text", worker.status_text);
  }
  line.field("busy", worker.busy);
  write_lines(line, "stack", worker.stack);
  line.close_object();
}

void write_upgrade(wire::JsonLine& line, const PoolModel& pool) {
  if (!pool.upgrade()) {
    line.null_field("upgrade");
    return;
  }
  const UpgradeView& upgrade = *pool.upgrade();
  std::uint64_t ready = 0;
  std::uint64_t old = 0;
  for (const auto& [epoch, worker] : pool.workers()) {
    ready += worker.version == upgrade.to && worker.state == "ready" ? 1U : 0U;
    old += worker.version != upgrade.to ? 1U : 0U;
  }
  line.open_object("upgrade");
  line.field("from", upgrade.from).field("to", upgrade.to).field("kind", upgrade.kind);
  write_time(line, "started_at", upgrade.started_at);
  write_time(line, "ended_at", upgrade.ended_at);
  line.field("outcome", upgrade.outcome).field("reason", upgrade.reason);
  line.field("ready", ready).field("old", old).field("target", pool.number());
  line.close_object();
}

void write_pool(wire::JsonLine& line, const PoolModel& pool) {
  const PoolCounters& counters = pool.counters();
  line.field("name", pool.name()).field("path", pool.path());
  line.field("connected", pool.connected()).field("error", pool.error());
  line.field("stream", pool.stream()).field("n", pool.last()).field("missed", counters.missed);
  line.field("master", pool.master_pid()).field("guard", pool.guard_pid());
  line.field("number", pool.number()).field("ready", pool.ready());
  line.field("version", pool.version()).field("stopping", pool.stopping());
  line.field("failed", pool.failed());
  line.field("crashes", counters.crashed).field("upgrades", counters.upgrades_done);
  line.field("master_rss", pool.sizes().master_rss).field("guard_rss", pool.sizes().guard_rss);
  write_upgrade(line, pool);
  line.open_list("workers");
  for (const auto& [epoch, worker] : pool.workers()) {
    write_worker(line, worker);
  }
  line.close_list().open_list("lives");
  for (const WorkerView& worker : pool.ended()) {
    write_worker(line, worker);
  }
  line.close_list().open_list("series");
  for (const PoolSample& sample : pool.samples()) {
    line.open_object();
    line.field("at", seconds(sample.at)).field("ready", sample.ready);
    line.field("number", sample.number).field("rss", sample.rss);
    line.field("cpu_percent", seconds(sample.cpu_percent)).field("waiting", sample.waiting);
    if (sample.requests) {
      line.field("requests", seconds(*sample.requests));
    }
    line.close_object();
  }
  line.close_list().open_list("events");
  for (const std::string& each : pool.lines()) {
    line.json_element(each);
  }
  line.close_list();
}

}  // namespace

std::string pool_json(const PoolModel& pool) {
  wire::JsonLine line;
  write_pool(line, pool);
  return line.take();
}

std::string pools_json(const Fleet& fleet, const std::string& pool, const AgentFacts& facts) {
  wire::JsonLine line;
  line.open_object("agent");
  line.field("version", EINHORN_VERSION).field("now", seconds(wall_seconds()));
  line.field("host", facts.host);
  line.field("control", facts.control).field("history", facts.history);
  line.close_object().open_list("pools");
  for (const auto& [name, feed] : fleet.feeds()) {
    if (pool.empty() || pool == name) {
      line.open_object();
      write_pool(line, feed->model());
      line.close_object();
    }
  }
  line.close_list();
  return line.take();
}

std::string connection_json(const PoolModel& pool) {
  wire::JsonLine line;
  line.field("pool", pool.name()).field("connected", pool.connected());
  line.field("error", pool.error());
  std::string text = line.take();
  text.pop_back();
  return text;
}

std::string event_json(const PoolModel& pool, std::string_view event) {
  wire::JsonLine line;
  line.field("pool", pool.name()).json("line", event);
  std::string text = line.take();
  text.pop_back();
  return text;
}

}  // namespace einhorn::agent
