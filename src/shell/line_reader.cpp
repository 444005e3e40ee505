#include "shell/line_reader.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/limits.h"
#include "os/linux/retry.h"

namespace einhorn::shell {

Result<std::optional<std::string>> LineReader::next() {
  std::array<char, 4096> chunk;
  while (true) {
    const std::size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return std::optional<std::string>(std::move(line));
    }
    if (at_end_) {
      return buffer_.empty() ? std::nullopt
                             : std::optional<std::string>(std::exchange(buffer_, std::string()));
    }
    if (buffer_.size() >= limits::kMaxLineBytes) {
      return make_error(
          "read standard input",
          "a line is longer than " + std::to_string(limits::kMaxLineBytes) + " bytes");
    }
    const ssize_t got = os::retry([&] { return ::read(fd_, chunk.data(), chunk.size()); });
    if (got > 0) {
      buffer_.append(chunk.data(), static_cast<std::size_t>(got));
    } else if (got == 0) {
      at_end_ = true;
    } else {
      return Error{errno, "read standard input", ""};
    }
  }
}

}  // namespace einhorn::shell
