// The terminal of `top`, by ncurses: lines onto the screen, keys from it. There is one at a time.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "base/result.h"
#include "shell/top_view.h"

namespace einhorn::shell {

class TopScreen {
 public:
  enum class Key { kUp, kDown, kPageUp, kPageDown, kHome, kEnd, kLeft, kRight, kOther };
  struct Pressed {
    Key key = Key::kOther;
    char letter = '\0';  // kOther
  };

  // Errors: standard input or output is no terminal, or one that nobody knows.
  [[nodiscard]] static Result<TopScreen> open(const char* term);
  TopScreen(TopScreen&& other) noexcept;
  TopScreen& operator=(TopScreen&&) = delete;
  TopScreen(const TopScreen&) = delete;
  TopScreen& operator=(const TopScreen&) = delete;
  // The terminal is as it was.
  ~TopScreen();

  [[nodiscard]] std::size_t rows() const;
  [[nodiscard]] std::size_t columns() const;
  // Takes the window's size as it is now.
  void resize();
  void show(const std::vector<TopLine>& lines);
  // Without waiting; none: nobody has pressed any.
  [[nodiscard]] std::optional<Pressed> next_key();

 private:
  TopScreen() = default;
  bool open_ = false;
};

}  // namespace einhorn::shell
