// `einhorn up`: every pool of a config file, each an einhorn of its own, started again when it
// fails.
#pragma once

#include <string>
#include <vector>

#include "master/configure.h"

namespace einhorn {

// Whether that command line asks for it: `einhorn up [FILE]`, with any options.
[[nodiscard]] bool wants_up(const master::Configuration& configuration);

// Pools of it that run already, as another `up` was killed, are gone on with. Runs until all pools have ended: 0 if each of them did so by itself, else 1. `script` is how
// einhorn was called, `words` the rest of the command line. Signals go on to every pool; those that
// end a pool end us too; HUP also reads the file again: new pools are started, pools that are gone
// from it are asked to finish.
int run_up(const std::string& script, const std::vector<std::string>& words);

}  // namespace einhorn
