// Becoming a guard: from a boot, from a guard that renewed its program, or from a Ruby master.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "guard/renewal.h"
#include "master/boot.h"
#include "programs/title.h"

namespace einhorn {

// How this process was started, before it changed anything.
struct Birth {
  std::vector<std::string> environment;
  std::uint64_t soft_descriptors = 0;  // RLIMIT_NOFILE
};

// Runs the guard of that pool; returns the exit status for main. `renewal` if a master runs
// already.
int run_guard(master::Boot boot, const guard::Renewal* renewal, const Birth& birth, Title& title);

// What a guard left behind when it executed this program (see Guard::renew).
// Errors: not of that form, no snapshot in it, a snapshot that can't be read.
[[nodiscard]] Result<master::Boot> read_renewal(std::string_view text, guard::Renewal& renewal);

}  // namespace einhorn
