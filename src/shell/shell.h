// einhornsh as a whole: from its arguments to its exit status.
#pragma once

#include <string>
#include <vector>

#include "os/temporary_directory.h"
#include "shell/output.h"

namespace einhorn::shell {

// What the world hands in. Standard input, output and error are descriptors 0, 1 and 2.
struct Invocation {
  std::vector<std::string> arguments;  // without the program's name
  os::EnvironmentLookup environment;
};

// Runs commands from -e, from standard input, or from people. Returns the exit status: 0 if every
// command succeeded (in the interactive shell always, once a master was reached), 1 if one failed,
// could not be understood, or the master was not reached or lost; 2 if the first thing that failed
// was an upgrade that could not be started. SIGINT ends the process: with status 0, or 130 while
// an upgrade is waited for, which goes on.
[[nodiscard]] int run_shell(const Invocation& invocation);

}  // namespace einhorn::shell
