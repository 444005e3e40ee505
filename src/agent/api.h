// What the agent's own pages are told: pools as JSON (docs/agent.md).
#pragma once

#include <string>

#include "agent/fleet.h"

namespace einhorn::agent {

// What is said of the agent itself.
struct AgentFacts {
  std::string host;      // under which its history has this machine's rows
  bool control = false;  // --allow-control
  bool history = false;  // --history
};

// {"agent":{...},"pools":[...]}. `pool`: only that one; "" all.
[[nodiscard]] std::string pools_json(const Fleet& fleet, const std::string& pool,
                                     const AgentFacts& facts);
[[nodiscard]] std::string pool_json(const PoolModel& pool);
// What an event stream says of a connection to a master that came or went.
[[nodiscard]] std::string connection_json(const PoolModel& pool);
// An event of a pool, with the pool's name.
[[nodiscard]] std::string event_json(const PoolModel& pool, std::string_view line);

}  // namespace einhorn::agent
