// What TAB offers: commands, as the master's `help` names them, and the arguments of some.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace einhorn::shell {

// The commands that can be completed.
class CommandCatalog {
 public:
  // Only what the shell itself understands: `quit`, `exit` and `history`.
  CommandCatalog() = default;
  // Those, and every line "name: description" of the master's reply to `help`.
  [[nodiscard]] static CommandCatalog from_help(std::string_view help);

  // Sorted, without repetitions.
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> names_ = {"exit", "history", "quit"};
};

struct Completion {
  std::size_t replaced = 0;             // so many bytes before the cursor are the word in question
  std::string common;                   // what all candidates begin with: put it in place of them
  std::vector<std::string> candidates;  // sorted; none: nothing to offer
};

// `before_cursor` is the line up to the cursor. Signal names match in any case, with or without
// SIG; everything else as it is written.
[[nodiscard]] Completion complete(std::string_view before_cursor, const CommandCatalog& catalog);

}  // namespace einhorn::shell
