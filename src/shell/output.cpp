#include "shell/output.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "os/linux/retry.h"

namespace einhorn::shell {

namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

}  // namespace

std::string escape_controls(std::string_view text, Newlines newlines) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char character : text) {
    const auto byte = static_cast<unsigned char>(character);
    const bool plain = character == '\t' || (character == '\n' && newlines == Newlines::kKept);
    if (plain || (byte >= 0x20 && byte != 0x7f)) {
      escaped += character;
    } else {
      escaped += "\\x";
      escaped += kHexDigits[byte >> 4U];
      escaped += kHexDigits[byte & 0xfU];
    }
  }
  return escaped;
}

Status write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = os::retry([&] { return ::write(fd, text.data(), text.size()); });
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN) {
      // Somebody who shares the terminal or pipe has made it non-blocking.
      pollfd entry = {fd, POLLOUT, 0};
      ::poll(&entry, 1, -1);
    } else {
      return Error{errno, fd == STDOUT_FILENO ? "write to standard output" : "write", ""};
    }
  }
  return Ok{};
}

Output::Output(int fd) : fd_(fd), is_terminal_(::isatty(fd) == 1) {}

Status Output::print(std::string_view text) const {
  std::string line = is_terminal_ ? escape_controls(text, Newlines::kKept) : std::string(text);
  if (!line.ends_with('\n')) {
    line += '\n';
  }
  return write_all(fd_, line);
}

}  // namespace einhorn::shell
