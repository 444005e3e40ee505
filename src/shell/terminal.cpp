#include "shell/terminal.h"

#include <sys/ioctl.h>

#include "shell/output.h"

namespace einhorn::shell {

std::size_t terminal_width(int fd) {
  constexpr std::size_t kUsual = 80;
  winsize size = {};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
    return kUsual;
  }
  return size.ws_col;
}

bool can_redraw(const char* term) {
  const std::string_view kind = term == nullptr ? "" : term;
  return !kind.empty() && kind != "dumb";
}

void StatusLine::show(std::string_view text) {
  if (text == shown_) {
    return;
  }
  // The text first and then the rest of the line: nothing flickers.
  std::string bytes = "\r";
  bytes += text;
  bytes += kClearLine.substr(1);
  [[maybe_unused]] const Status status = write_all(fd_, bytes);
  shown_ = text;
}

void StatusLine::clear() {
  if (!shown_.empty()) {
    [[maybe_unused]] const Status status = write_all(fd_, kClearLine);
    shown_.clear();
  }
}

std::size_t StatusLine::width() const {
  constexpr std::size_t kKeptFree = 3;
  const std::size_t width = terminal_width(fd_);
  return width > kKeptFree ? width - kKeptFree : 0;
}

}  // namespace einhorn::shell
