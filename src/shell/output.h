// Writing to people and to other programs.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace einhorn::shell {

enum class Newlines { kKept, kEscaped };

// The text with every control character but tab (and newline, if kept) written as \xNN, so that
// what a worker or another user chose to say can't drive the terminal.
[[nodiscard]] std::string escape_controls(std::string_view text, Newlines newlines);

// Writes all of it, as it is. Errors: the write's.
[[nodiscard]] Status write_all(int fd, std::string_view text);

// An open descriptor that is written to without a buffer, so that nothing is lost or said twice
// when the process is ended by a signal.
class Output {
 public:
  explicit Output(int fd);

  [[nodiscard]] bool is_terminal() const { return is_terminal_; }

  // Writes the text, and a newline unless it ends with one. On a terminal control characters are
  // escaped. Errors: the write's.
  [[nodiscard]] Status print(std::string_view text) const;

 private:
  int fd_;
  bool is_terminal_;
};

}  // namespace einhorn::shell
