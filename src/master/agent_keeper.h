// Keeps einhorn-agent up beside the pool (--agent): one more companion (master/companion.h), to which
// nothing is said but LEAVE=1. It hears of the pool as any other client, from the event stream.
#pragma once

#include <functional>
#include <string>

#include "master/companion.h"

namespace einhorn::master {

// einhorn-agent lies beside einhorn, or in the PATH that the pool was started with.
[[nodiscard]] Result<std::string> find_agent(os::Kernel& kernel,
                                             const std::vector<std::string>& environment);

class AgentKeeper {
 public:
  AgentKeeper(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
              std::function<void(Pid)> started);

  [[nodiscard]] Companion& companion() { return agent_; }

 private:
  [[nodiscard]] os::SpawnSpec program() const;

  os::Kernel& kernel_;
  const wire::Settings& settings_;
  Companion agent_;
};

}  // namespace einhorn::master
