// The way back: a Ruby Einhorn, named with --reexec-as, takes the pool over in the guard's pid.
#pragma once

#include <sys/types.h>

#include "master/boot.h"
#include "os/become.h"

namespace einhorn::master {

// Whether Ruby's Einhorn could go on with such a pool and its workers come up. Errors: it lacks an
// option that they rely on.
[[nodiscard]] Status check_leaving_to_ruby(const wire::Settings& settings,
                                           const pool::Config& config);

// `boot` is what a renewed guard has, `master` its frozen master, reachable at `control`: told to
// leave, and waited for. Then this process becomes the Ruby master. Returns only if that failed;
// the reason is in the log. `kThere`: nothing has happened, and the master has been told to go on.
// `kGone`: another one has to be started, from `boot`.
[[nodiscard]] os::MasterIs leave_to_ruby(Boot& boot, pid_t master, int control);

}  // namespace einhorn::master
