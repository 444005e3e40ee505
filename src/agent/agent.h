// einhorn-agent: what looks at pools. Discovery, page, metrics, health, StatsD and history, all
// fed by the event streams of the masters. No pool needs it.
#pragma once

#include <string>
#include <vector>

#include "os/temporary_directory.h"

namespace einhorn::agent {

struct Invocation {
  std::vector<std::string> arguments;  // without the program's name
  os::EnvironmentLookup environment;
};

// The exit status.
int run_agent(const Invocation& invocation);

}  // namespace einhorn::agent
