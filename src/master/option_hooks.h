// Options that name hooks (docs/hooks.md). Internal to the command line (master/option_table.h): each
// notes what it says.
#pragma once

#include <string>

#include "base/result.h"
#include "master/options.h"

namespace einhorn::master {

Status apply_hook(Options& options, pool::Hook hook, const std::string& value);
Status apply_hook_timeout(Duration& timeout, const std::string& value);

// Lines become words, or are the shell's.
[[nodiscard]] Status complete_hooks(Options& options);

}  // namespace einhorn::master
