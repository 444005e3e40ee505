// Whether pools are well, by one rule, and what HAProxy's agent-check is told.
//
// A pool is well if the agent is connected to its master and at least so many percent of the
// wanted workers are ready. Draining comes before everything: the agent itself is told to leave, or
// the pool goes down.
#pragma once

#include <cstdint>
#include <string>

#include "agent/fleet.h"
#include "agent/listen.h"

namespace einhorn::agent {

struct HealthRule {
  std::uint32_t least_percent = 50;
};

struct Health {
  bool well = false;
  bool draining = false;
  std::string text;  // one line a pool
};

// Of one pool, or of all ("" ): all have to be well. A name that is not there is not well.
[[nodiscard]] Health health_of(const Fleet& fleet, const std::string& pool, const HealthRule& rule,
                               bool draining, Instant now);

// "up 75%\n", "drain\n", "down\n": the weight is how many of the wanted workers are ready.
[[nodiscard]] std::string agent_check_answer(const Fleet& fleet, const std::string& pool,
                                             const HealthRule& rule, bool draining, Instant now);

// Tells every connection one line and closes it.
class AgentCheck {
 public:
  AgentCheck(Loop& loop, os::UniqueFd listener, std::function<std::string()> answer);
  ~AgentCheck();
  AgentCheck(const AgentCheck&) = delete;
  AgentCheck& operator=(const AgentCheck&) = delete;
  [[nodiscard]] int listener() const { return listener_.get(); }

 private:
  Loop& loop_;
  os::UniqueFd listener_;
};

}  // namespace einhorn::agent
