// What a person types, taken apart: a sequence of commands, each a line of shell words.
//
// First the text is split at every `;`, quoted or not; then each piece into words, quoted as in a
// POSIX shell: single quotes, double quotes, backslash, and no expansion of any kind.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace einhorn::shell {

struct CommandLine {
  std::string command;
  std::vector<std::string> args;
  friend bool operator==(const CommandLine&, const CommandLine&) = default;
};

// Errors: a quote that isn't closed, a NUL byte; one printable line.
[[nodiscard]] Result<std::vector<std::string>> split_words(std::string_view line);

// The commands of "a; b x; c", in order; empty ones are left out. Errors: those of `split_words`,
// in which case nothing of the sequence should be run.
[[nodiscard]] Result<std::vector<CommandLine>> parse_sequence(std::string_view text);

}  // namespace einhorn::shell
