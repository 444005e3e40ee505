// A command line as a shell reads it: words, quotes, backslashes; no expansion of any kind.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace einhorn::master {

// Words are separated by white space. '...' is literal; in "..." a backslash quotes $ ` " \ and
// newline only; elsewhere it quotes the next character.
// Errors: a quote that is not closed, a backslash at the end; the message has no operation.
[[nodiscard]] Result<std::vector<std::string>> split_shell_words(std::string_view line);

}  // namespace einhorn::master
