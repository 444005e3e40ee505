// Becoming another master, in this pid.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "os/kernel.h"

namespace einhorn::os {

struct Becoming {
  std::string state;                   // what it reads from --with-state-fd
  std::vector<std::string> arguments;  // how it is called
  std::vector<std::string> command;    // what stands behind `--`
  std::vector<std::string> environment;
  std::vector<int> kept;              // descriptors it gets under their numbers
  std::vector<DescriptorMove> moves;  // and under other ones
  std::string remove;                 // a file that means nothing to it
};

// Tells our own master to leave, waits until it is gone, and executes the other one with all
// signals at their default and none blocked. Returns only on failure.
[[nodiscard]] Status become(const Becoming& becoming, pid_t master, int control);

}  // namespace einhorn::os
