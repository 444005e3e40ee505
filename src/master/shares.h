// How much memory workers have for themselves and share with others, for reports.
//
// The kernel walks a process's page tables for that, so one report measures for a tenth of a second
// at most: what there is no time for is shown as it was last measured, and has its turn at the next.
#pragma once

#include <map>
#include <optional>

#include "base/ids.h"
#include "base/instant.h"
#include "os/kernel.h"

namespace einhorn::master {

class Shares {
 public:
  explicit Shares(os::Kernel& kernel) : kernel_(kernel) {}

  // A report begins.
  void begin();
  // None: not known (yet).
  [[nodiscard]] std::optional<os::MemoryShares> of(Pid pid);

 private:
  struct Measured {
    os::MemoryShares shares;
    Instant at;
  };
  os::Kernel& kernel_;
  std::map<Pid, Measured> measured_;
  Instant until_;
};

}  // namespace einhorn::master
