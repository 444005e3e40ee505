// Lines from a descriptor that is no terminal.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace einhorn::shell {

class LineReader {
 public:
  explicit LineReader(int fd) : fd_(fd) {}

  // The next line without its newline; what stands behind the last newline is a line, too. None at
  // the end. Errors: the read's; a line longer than `limits::kMaxLineBytes`.
  [[nodiscard]] Result<std::optional<std::string>> next();

 private:
  int fd_;
  std::string buffer_;
  bool at_end_ = false;
};

}  // namespace einhorn::shell
