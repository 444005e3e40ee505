// Becoming a guard: from a boot, from a guard that renewed its program, or from a Ruby master.
#pragma once

#include <string>
#include <vector>

#include "master/boot.h"
#include "programs/title.h"

namespace einhorn {

struct Renewal {
  int how = 1;  // 1: go on as the guard; 2: leave the pool to --reexec-as
  pid_t master = -1;
  int control = -1;
  std::uint64_t signals = 0;
};

// Runs the guard of that pool; returns the exit status for main. `renewal` if a master runs
// already.
int run_guard(master::Boot boot, const Renewal* renewal, Title& title);

// What a guard left behind when it executed this program (see Guard::renew).
// Errors: not of that form, no snapshot in it, a snapshot that can't be read.
[[nodiscard]] Result<master::Boot> read_renewal(std::string_view text, Renewal& renewal);

}  // namespace einhorn
