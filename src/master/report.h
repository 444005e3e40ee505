// What `state`, `state json` and `status` say. Pure: everything it shows is handed in.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "os/kernel.h"
#include "pool/pool.h"
#include "wire/snapshot.h"
#include "wire/value.h"

namespace einhorn::master {

// A process that a version's workers are forked from.
struct ZygoteLine {
  Version version;
  Pid pid = 0;
  bool loaded = false;
  std::string status;
};

class Capture;
// A worker that was taken out because it hung, or was above a hard limit.
struct Casualty {
  WorkerId worker;
  Pid pid = 0;
  Version version;
  Instant at;
  pool::Ailment ailment = pool::Ailment::kNone;
  std::string complaint;
  std::string request_id;          // the last one it told of; JSON text
  std::vector<std::string> stack;  // as eu-stack wrote it
};

struct ReportInput {
  const pool::Pool& pool;
  const wire::Settings& settings;
  const std::map<Version, wire::Program>& programs;
  const std::map<std::uint32_t, wire::ListenerRecord>& listeners;
  Pid guard = 0;  // 0: there is none any more
  Pid master = 0;
  std::uint64_t guard_resident = 0;  // bytes; 0 unknown
  std::uint64_t master_resident = 0;
  Instant now;
  std::function<Pid(WorkerId)> pid_of;                           // 0: not known yet
  std::function<std::optional<std::uint64_t>(Pid)> resident_of;  // bytes; none: gone
  const Capture* capture = nullptr;                              // null: output is inherited
  std::deque<Casualty> casualties = {};                          // the oldest one first
  // By the listener's index; none: not known.
  std::function<std::optional<os::AcceptQueue>(std::uint32_t)> queue_of;
  // With preloading only.
  std::function<std::optional<os::MemoryShares>(Pid)> shares_of = {};  // none: not known
  std::vector<ZygoteLine> zygotes = {};
};

// The `request_id` of a worker's last ping, of whatever kind it was; Null if there was none.
[[nodiscard]] wire::Value ping_request_id(const pool::Worker& worker);

// Where workers' output goes, and what dead workers said last; of a pool with --capture.
[[nodiscard]] wire::Value capture_report(const ReportInput& input);

// Upstream's `state`: YAML in which Ruby's users find what they know (docs/protocol.md): their keys
// in their order, and behind them `:guard`, `:master`, `:failed`, `:failure` and, with
// --capture, `:capture`. A worker whose pid
// is not known yet is left out, since pids are the keys.
[[nodiscard]] std::string state_yaml(const ReportInput& input);

// For programs: one JSON object (docs/protocol.md). Asks for every worker's memory.
[[nodiscard]] std::string state_json(const ReportInput& input);

// For people: one screen, aligned, no line longer than 100 columns.
[[nodiscard]] std::string status_text(const ReportInput& input);

}  // namespace einhorn::master
