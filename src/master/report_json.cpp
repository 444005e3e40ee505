// `state json`: everything there is to know, for programs.
#include <utility>

#include "master/report.h"
#include "wire/json.h"
#include "wire/note_events.h"

namespace einhorn::master {
namespace {

using wire::List;
using wire::Map;
using wire::Value;

Value null_if_empty(const std::string& text) { return text.empty() ? Value() : Value(text); }

Value null_if_zero(Pid pid) { return pid == 0 ? Value() : Value(pid); }

List to_list(const std::vector<std::string>& texts) { return {texts.begin(), texts.end()}; }

class JsonReport {
 public:
  explicit JsonReport(const ReportInput& input) : input_(input) {}

  [[nodiscard]] Value document() const {
    const wire::Settings& settings = input_.settings;
    const pool::Ledger& ledger = input_.pool.ledger();
    const pool::Config& config = input_.pool.config();
    Map out;
    put(out, "einhorn", EINHORN_VERSION);
    put(out, "name", null_if_empty(settings.name));
    put(out, "guard", null_if_zero(input_.guard));
    put(out, "master", null_if_zero(input_.master));
    put(out, "number", config.number);
    put(out, "workers_min", config.workers_max > 0 ? Value(config.workers_min) : Value());
    put(out, "workers_max", config.workers_max > 0 ? Value(config.workers_max) : Value());
    put(out, "ready", std::uint64_t{input_.pool.ready()});
    put(out, "version", ledger.version.value);
    put(out, "newest_version", ledger.newest.value);
    put(out, "upgrading", ledger.upgrade.has_value());
    put(out, "upgrade", upgrade());
    put(out, "failed", ledger.failed);
    put(out, "failure", null_if_empty(ledger.failure));
    put(out, "respawn", ledger.respawn);
    put(out, "deaths_before_ack", ledger.deaths_before_ack);
    put(out, "deaths", ledger.deaths);
    put(out, "generation", settings.generation);
    put(out, "ack_mode", wire::ack_mode_name(config.ack_mode));
    put(out, "stop_signal", signal_name(config.stop_signal));
    put(out, "socket_path", null_if_empty(settings.socket_path));
    put(out, "pidfile", null_if_empty(settings.pidfile));
    put(out, "started_at", time(settings.started_at));
    put(out, "sockets", sockets());
    put(out, "versions", versions());
    put(out, "workers", workers());
    if (input_.capture != nullptr) {
      put(out, "capture", capture_report(input_));
    }
    put(out, "memory", memory());
    put(out, "hung", casualties());
    put(out, "paused", paused());
    if (input_.shares_of) {
      put(out, "zygotes", zygotes());
    }
    return out;
  }

 private:
  [[nodiscard]] Value time(std::optional<Instant> at) const {
    return at ? Value(to_wall(*at, input_.settings.wall_offset)) : Value();
  }

  [[nodiscard]] Value upgrade() const {
    const std::optional<pool::UpgradeProgress>& progress = input_.pool.ledger().upgrade;
    if (!progress) {
      return {};
    }
    Map out;
    put(out, "from", progress->from.value);
    put(out, "to", progress->to.value);
    put(out, "smooth", progress->smooth);
    put(out, "going_back", progress->going_back);
    put(out, "proved", progress->proved);
    put(out, "failures", progress->failures);
    put(out, "reports", to_list(progress->reports));
    return out;
  }

  [[nodiscard]] Value sockets() const {
    List out;
    for (const auto& [index, listener] : input_.listeners) {
      Map socket;
      put(socket, "index", index);
      put(socket, "address", listener.address);
      put(socket, "fd", std::int64_t{input_.settings.first_descriptor} + index);
      put(socket, "name", null_if_empty(listener.name));
      put(socket, "bind", listener.text);
      const auto queue = input_.queue_of ? input_.queue_of(index) : std::nullopt;
      put(socket, "queue", queue ? Value(std::uint64_t{queue->waiting}) : Value());
      put(socket, "queue_limit", queue ? Value(std::uint64_t{queue->limit}) : Value());
      out.emplace_back(std::move(socket));
    }
    return out;
  }

  // Not the environment: it may hold what nobody should read.
  [[nodiscard]] Value versions() const {
    List out;
    for (const auto& [version, program] : input_.programs) {
      Map entry;
      put(entry, "version", version.value);
      put(entry, "directory", program.directory);
      put(entry, "program", program.path);
      put(entry, "arguments", to_list(program.arguments));
      out.emplace_back(std::move(entry));
    }
    return out;
  }

  [[nodiscard]] Value workers() const {
    List out;
    for (const pool::Worker* worker : input_.pool.workers()) {
      out.emplace_back(to_map(*worker));
    }
    return out;
  }

  [[nodiscard]] Map to_map(const pool::Worker& worker) const {
    const Pid pid = input_.pid_of(worker.id);
    const std::optional<std::uint64_t> resident = pid != 0 ? input_.resident_of(pid) : std::nullopt;
    List signaled;
    for (const int number : worker.signaled.numbers()) {
      signaled.emplace_back(signal_name(number));
    }
    Map out;
    put(out, "pid", null_if_zero(pid));
    put(out, "index", worker.id.slot.value);
    put(out, "epoch", worker.id.epoch.value);
    put(out, "version", worker.version.value);
    put(out, "state", pool::name(worker.state));
    put(out, "acked", worker.acked());
    put(out, "signaled", std::move(signaled));
    put(out, "started_at", time(worker.spawned_at));
    put(out, "acked_at", time(worker.acked_at));
    put(out, "last_signaled_at", time(worker.last_signaled_at));
    put(out, "pinged_at", time(worker.pinged_at));
    put(out, "pinged_request_id", ping_request_id(worker));
    put(out, "status", null_if_empty(worker.status_text));
    put(out, "rss", resident ? Value(*resident) : Value());
    if (input_.shares_of) {
      const auto shares = pid != 0 ? input_.shares_of(pid) : std::nullopt;
      put(out, "private", shares ? Value(shares->private_bytes) : Value());
      put(out, "shared", shares ? Value(shares->shared_bytes) : Value());
    }
    put(out, "requests", worker.requests);
    put(out, "busy", busy(worker));
    put(out, "ailment", null_if_empty(std::string(pool::name(worker.ailment))));
    put(out, "complaint", null_if_empty(worker.complaint));
    put(out, "recycling", worker.recycling);
    put(out, "hook", null_if_empty(std::string(pool::name(worker.hook))));
    return out;
  }

  [[nodiscard]] static Value request_id(const std::string& json) {
    pool::Worker worker;
    worker.pinged_request_id = json;
    return ping_request_id(worker);
  }

  [[nodiscard]] Value busy(const pool::Worker& worker) const {
    List out;
    for (const pool::BusyRequest& request : worker.busy) {
      Map entry;
      put(entry, "request_id", request_id(request.id));
      put(entry, "since", time(request.since));
      out.emplace_back(std::move(entry));
    }
    return out;
  }

  [[nodiscard]] Value zygotes() const {
    List out;
    for (const ZygoteLine& zygote : input_.zygotes) {
      Map entry;
      put(entry, "version", zygote.version.value);
      put(entry, "pid", zygote.pid);
      put(entry, "loaded", zygote.loaded);
      put(entry, "status", null_if_empty(zygote.status));
      out.emplace_back(std::move(entry));
    }
    return out;
  }

  // Workers that were taken out, the last few.
  [[nodiscard]] Value casualties() const {
    List out;
    for (const Casualty& casualty : input_.casualties) {
      Map entry;
      put(entry, "pid", null_if_zero(casualty.pid));
      put(entry, "index", casualty.worker.slot.value);
      put(entry, "epoch", casualty.worker.epoch.value);
      put(entry, "version", casualty.version.value);
      put(entry, "at", time(casualty.at));
      put(entry, "ailment", pool::name(casualty.ailment));
      put(entry, "complaint", casualty.complaint);
      put(entry, "request_id", request_id(casualty.request_id));
      put(entry, "stack", to_list(casualty.stack));
      out.emplace_back(std::move(entry));
    }
    return out;
  }

  [[nodiscard]] Value paused() const {
    List out;
    for (const auto& [slot, trouble] : input_.pool.troubles()) {
      if (!trouble.paused()) {
        continue;
      }
      Map entry;
      put(entry, "index", slot.value);
      put(entry, "until", time(trouble.paused_until));
      put(entry, "retry", trouble.retries);
      put(entry, "given_up", trouble.given_up);
      out.emplace_back(std::move(entry));
    }
    return out;
  }

  [[nodiscard]] Value memory() const {
    const auto bytes = [](std::uint64_t value) { return value != 0 ? Value(value) : Value(); };
    Map out;
    put(out, "guard", bytes(input_.guard_resident));
    put(out, "master", bytes(input_.master_resident));
    return out;
  }

  const ReportInput& input_;
};

}  // namespace

std::string state_json(const ReportInput& input) {
  return wire::encode_json(JsonReport(input).document());
}

}  // namespace einhorn::master
