#include "shell/top_screen.h"

#include <ncurses.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

namespace einhorn::shell {
namespace {

// Colours of versions, in turns: what is next to each other differs.
constexpr std::array<short, 5> kVersionColours = {COLOR_CYAN, COLOR_MAGENTA, COLOR_BLUE,
                                                  COLOR_YELLOW, COLOR_GREEN};
constexpr short kGoodPair = 1;
constexpr short kWarningPair = 2;
constexpr short kBadPair = 3;
constexpr short kFirstVersionPair = 4;

void make_colours() {
  if (!::has_colors()) {
    return;
  }
  ::start_color();
  ::use_default_colors();
  ::init_pair(kGoodPair, COLOR_GREEN, -1);
  ::init_pair(kWarningPair, COLOR_YELLOW, -1);
  ::init_pair(kBadPair, COLOR_RED, -1);
  for (std::size_t i = 0; i < kVersionColours.size(); ++i) {
    ::init_pair(static_cast<short>(kFirstVersionPair + static_cast<short>(i)),
                kVersionColours.at(i), -1);
  }
}

attr_t attributes_of(const TopSpan& span, short& pair) {
  switch (span.style) {
    case Style::kPlain:
      return A_NORMAL;
    case Style::kHead:
      return A_BOLD;
    case Style::kDim:
      return A_DIM;
    case Style::kGood:
      pair = kGoodPair;
      return A_BOLD;
    case Style::kWarning:
      pair = kWarningPair;
      return A_NORMAL;
    case Style::kBad:
      pair = kBadPair;
      return A_BOLD;
    case Style::kVersion: {
      constexpr auto kCount = static_cast<std::int64_t>(kVersionColours.size());
      pair = static_cast<short>(kFirstVersionPair + ((span.version % kCount) + kCount) % kCount);
      return A_NORMAL;
    }
  }
  return A_NORMAL;
}

}  // namespace

Result<TopScreen> TopScreen::open(const char* term) {
  if (::isatty(STDIN_FILENO) != 1 || ::isatty(STDOUT_FILENO) != 1) {
    return make_error("top", "standard input and output must be a terminal");
  }
  SCREEN* screen = ::newterm(nullptr, stdout, stdin);
  if (screen == nullptr) {
    return make_error("top", std::string("this kind of terminal is not known (TERM=") +
                                 (term == nullptr ? "" : term) + ")");
  }
  TopScreen made;
  made.open_ = true;
  ::cbreak();
  ::noecho();
  ::nonl();
  ::intrflush(stdscr, FALSE);
  ::keypad(stdscr, TRUE);
  ::nodelay(stdscr, TRUE);
  ::set_escdelay(50);
  ::curs_set(0);
  make_colours();
  return made;
}

TopScreen::TopScreen(TopScreen&& other) noexcept : open_(std::exchange(other.open_, false)) {}

TopScreen::~TopScreen() {
  if (open_) {
    ::endwin();
  }
}

std::size_t TopScreen::rows() const { return static_cast<std::size_t>(getmaxy(stdscr)); }

std::size_t TopScreen::columns() const { return static_cast<std::size_t>(getmaxx(stdscr)); }

void TopScreen::resize() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
    ::resizeterm(size.ws_row, size.ws_col);
    ::clear();
  }
}

void TopScreen::show(const std::vector<TopLine>& lines) {
  ::erase();
  int row = 0;
  for (const TopLine& line : lines) {
    ::move(row++, 0);
    for (const TopSpan& span : line) {
      short pair = 0;
      const attr_t attributes = attributes_of(span, pair);
      ::attr_set(attributes, pair, nullptr);
      ::addnstr(span.text.data(), static_cast<int>(span.text.size()));
    }
    ::attr_set(A_NORMAL, 0, nullptr);
  }
  ::refresh();
}

std::optional<TopScreen::Pressed> TopScreen::next_key() {
  const int key = ::getch();
  switch (key) {
    case ERR:
      return std::nullopt;
    case KEY_UP:
      return Pressed{Key::kUp};
    case KEY_DOWN:
      return Pressed{Key::kDown};
    case KEY_PPAGE:
      return Pressed{Key::kPageUp};
    case KEY_NPAGE:
      return Pressed{Key::kPageDown};
    case KEY_HOME:
      return Pressed{Key::kHome};
    case KEY_END:
      return Pressed{Key::kEnd};
    case KEY_LEFT:
      return Pressed{Key::kLeft};
    case KEY_RIGHT:
      return Pressed{Key::kRight};
    default:
      return Pressed{Key::kOther, key > 0 && key < 128 ? static_cast<char>(key) : '\0'};
  }
}

}  // namespace einhorn::shell
