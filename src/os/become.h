// Becoming another master, in this pid.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
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
  std::vector<DescriptorMove> moves;  // and under other ones, where nothing of ours may be
  int out_of_the_way = 256;           // numbers from here on are free for our own use
  std::string remove;                 // a file that means nothing to it
};

// One message to the master of this guard.
void tell(int control, std::string_view text);

enum class MasterIs { kThere, kGone };

// Tells our own master to leave, waits until it is gone, and executes the other one with all
// signals at their default and none blocked. Returns only on failure, with the reason; `left` then
// says whether that was before the master had been told, or too late.
[[nodiscard]] Error become(const Becoming& becoming, pid_t master, int control, MasterIs& left);

}  // namespace einhorn::os
