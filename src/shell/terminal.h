// What a terminal can do beyond taking lines.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace einhorn::shell {

// The columns of the window; 80 if it doesn't say.
[[nodiscard]] std::size_t terminal_width(int fd);

// Whether a terminal of this kind ($TERM; null if unset) understands escape codes.
[[nodiscard]] bool can_redraw(const char* term);

// Moves to the beginning of the line and empties it.
inline constexpr std::string_view kClearLine = "\r\x1b[K";

// One line at the bottom of a terminal that is redrawn in place while others pass above it: clear
// it before anything else is written. It goes when this does. A terminal that can't be written to
// is no error: whatever is said next will find that out.
class StatusLine {
 public:
  // Contract: `fd` is a terminal that can redraw.
  explicit StatusLine(int fd) : fd_(fd) {}
  ~StatusLine() { clear(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  // Puts the text, which is printable, in one line and not empty, in place of what is shown.
  void show(std::string_view text);
  void clear();

  // How long a text may be, as the window is now: so that neither the cursor nor the `^C` that a
  // terminal shows behind it wraps into the next line.
  [[nodiscard]] std::size_t width() const;

 private:
  int fd_;
  std::string shown_;  // "" if there is nothing
};

}  // namespace einhorn::shell
