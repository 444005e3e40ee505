// How a child ended, from what waitid() says of it to what the pool calls it.
#pragma once

#include <csignal>

#include "os/kernel.h"
#include "pool/event.h"

namespace einhorn::master {

[[nodiscard]] inline pool::ExitStatus exit_status(os::Ended how) {
  pool::ExitStatus status;
  const bool signaled = how.code == CLD_KILLED || how.code == CLD_DUMPED;
  status.kind = signaled ? pool::ExitStatus::Kind::kSignaled : pool::ExitStatus::Kind::kExited;
  status.value = how.status;
  status.core_dumped = how.code == CLD_DUMPED;
  return status;
}

}  // namespace einhorn::master
