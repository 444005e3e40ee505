// The command line of einhornsh.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/instant.h"
#include "base/result.h"

namespace einhorn::shell {

enum class Mode {
  kRun,
  kUsage,    // the usage on standard error, exit 1: asked for, or two names were given
  kTop,      // the workers, live
  kVersion,  // the version on standard output, exit 0
};

struct ShellOptions {
  Mode mode = Mode::kRun;
  std::string complaint;                    // kUsage: what was wrong; "" if it was asked for
  std::optional<std::string> socket_path;   // -d; goes before a name
  std::optional<std::string> command_name;  // -c, or the only positional argument
  std::optional<std::string> commands;      // -e
  std::optional<Duration> timeout;          // --timeout: for each command, and to connect
  bool json = false;                        // --json
};

// `arguments` without the program's name. Options and the name may come in any order; long options
// may be shortened as far as they stay unique; behind `--` everything is a name.
// Errors: one line that says which argument is wrong.
[[nodiscard]] Result<ShellOptions> parse_options(const std::vector<std::string>& arguments);

[[nodiscard]] std::string usage_text();

}  // namespace einhorn::shell
