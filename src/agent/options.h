// The command line of einhorn-agent: one table of options, from which the usage is made too.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agent/health.h"
#include "agent/statsd.h"
#include "os/temporary_directory.h"

namespace einhorn::agent {

enum class Mode { kRun, kUsage, kVersion, kSql, kHistory };

struct AgentOptions {
  Mode mode = Mode::kRun;
  Wanted wanted;
  std::string listen = "127.0.0.1:9100";
  bool listen_given = false;
  std::vector<std::string> hosts;  // names that the page may be asked for by
  Duration sample_interval = std::chrono::seconds{5};
  bool allow_control = false;
  std::string token_file;
  HealthRule health;
  std::string agent_check;  // address; "" none
  std::string agent_check_pool;
  Duration drain{0};  // how long to say `drain` before leaving
  StatsdOptions statsd;
  std::string history;  // file or postgresql://...; "" none
  Duration keep_age = std::chrono::hours{24 * 30};
  std::uint64_t keep_bytes = 1u << 30u;
  int companion = -1;              // started by einhorn --agent: the line to that master
  std::vector<std::string> words;  // of sql and history
};

// Errors name the option, what was given and what is allowed.
[[nodiscard]] Result<AgentOptions> parse_options(const std::vector<std::string>& arguments,
                                                 const os::EnvironmentLookup& environment);
[[nodiscard]] std::string usage_text();

// Which history `sql` and `history` ask: --history, else EINHORN_HISTORY, else the file beside the
// command socket that a running agent has written (history_note).
[[nodiscard]] Result<std::string> find_history(const AgentOptions& options,
                                               const os::EnvironmentLookup& environment);
// SOCKET.history: one line, where the agent that watches that pool keeps its history.
[[nodiscard]] std::string history_note(const std::string& socket_path);

// "90", "30s", "5m", "12h", "7d".
[[nodiscard]] Result<Duration> parse_duration(const std::string& text);

}  // namespace einhorn::agent
