// What the options of as whom and with which variables workers run note.
//
// Internal to the command line (master/option_table.h).
#pragma once

#include <string>

#include "base/result.h"
#include "master/options.h"

namespace einhorn::master {

[[nodiscard]] Status apply_umask(Options& options, const std::string& value);
// NAME[,NAME...]; given again, it adds up.
[[nodiscard]] Status apply_group(Options& options, const std::string& value);
// The same.
[[nodiscard]] Status apply_capabilities(Options& options, const std::string& value);
[[nodiscard]] Status apply_chroot(Options& options, const std::string& value);
[[nodiscard]] Status apply_cpu_affinity(Options& options, const std::string& value);
// NAME=VALUE. The value may be a secret: no error shows it.
[[nodiscard]] Status apply_env(Options& options, const std::string& value);
[[nodiscard]] Status apply_env_file(Options& options, const std::string& value);

}  // namespace einhorn::master
