// `state json`: everything there is to know, for programs.
#include <utility>

#include "master/report.h"
#include "wire/json.h"

namespace einhorn::master {
namespace {

using wire::List;
using wire::Map;
using wire::Value;

Value null_if_empty(const std::string& text) { return text.empty() ? Value() : Value(text); }

Value null_if_zero(Pid pid) { return pid == 0 ? Value() : Value(pid); }

List to_list(const std::vector<std::string>& texts) { return {texts.begin(), texts.end()}; }

std::string_view name(pool::AckMode mode) {
  switch (mode) {
    case pool::AckMode::kTimer:
      return "timer";
    case pool::AckMode::kManual:
      return "manual";
    case pool::AckMode::kNotify:
      return "notify";
    case pool::AckMode::kListen:
      return "listen";
  }
  return "";
}

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
    put(out, "ack_mode", name(config.ack_mode));
    put(out, "stop_signal", signal_name(config.stop_signal));
    put(out, "socket_path", null_if_empty(settings.socket_path));
    put(out, "pidfile", null_if_empty(settings.pidfile));
    put(out, "started_at", time(settings.started_at));
    put(out, "sockets", sockets());
    put(out, "versions", versions());
    put(out, "workers", workers());
    put(out, "memory", memory());
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
