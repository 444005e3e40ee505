// --daemonize: the pool in the background, and an exit status that says whether it came up.
#pragma once

#include <functional>

#include "master/options.h"

namespace einhorn {

// Runs `pool` in a child that is in a session of its own, and waits until all workers are up: 0
// then. When the pool ends before that, or three workers in a row have died before their ACK, the
// pool is ended, what the log said of errors goes to standard error, and it is 1. `pool` gets what
// it has to call as soon as it can do no harm to speak no more on our standard error; its result is
// the child's exit status.
int daemonize(const master::Options& options,
              const std::function<int(const std::function<void()>& detach)>& pool);

}  // namespace einhorn
