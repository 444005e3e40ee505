// The way back: a Ruby Einhorn, named with --reexec-as, takes the pool over in the guard's pid.
#pragma once

#include <sys/types.h>

#include "master/boot.h"

namespace einhorn::master {

// `boot` is what a renewed guard has, `master` its frozen master, reachable at `control`: told to
// leave, and waited for. Then this process becomes the Ruby master. Returns only if that failed;
// the reason is in the log, and the master is gone by then.
void leave_to_ruby(const Boot& boot, pid_t master, int control);

}  // namespace einhorn::master
