#include "shell/interrupt.h"

#include <unistd.h>

#include <csignal>
#include <string_view>

#include "shell/terminal.h"

namespace einhorn::shell {

namespace {

constexpr int kDetached = 128 + SIGINT;

using Handler = void (*)(int);

void put(int fd, std::string_view text) {
  [[maybe_unused]] const ssize_t written = ::write(fd, text.data(), text.size());
}

// There is a handler for every case, so that none has to read what the program may be writing.
template <Interrupted kWhat, Screen kScreen>
void leave(int) {
  if constexpr (kScreen == Screen::kClearLine) {
    put(STDOUT_FILENO, kClearLine);
  } else if constexpr (kScreen == Screen::kNewLine) {
    put(STDERR_FILENO, "\n");
  }
  if constexpr (kWhat == Interrupted::kUpgrade) {
    put(STDERR_FILENO, "Detached; the upgrade goes on.\n");
  } else if constexpr (kWhat == Interrupted::kRollback) {
    put(STDERR_FILENO, "Detached; the rollback goes on.\n");
  }
  ::_exit(kWhat == Interrupted::kNothing ? 0 : kDetached);
}

template <Interrupted kWhat>
Handler handler_for(Screen screen) {
  switch (screen) {
    case Screen::kAsItIs:
      return leave<kWhat, Screen::kAsItIs>;
    case Screen::kNewLine:
      return leave<kWhat, Screen::kNewLine>;
    case Screen::kClearLine:
      return leave<kWhat, Screen::kClearLine>;
  }
  return SIG_DFL;
}

Handler handler_for(Interrupted what, Screen screen) {
  switch (what) {
    case Interrupted::kNothing:
      return handler_for<Interrupted::kNothing>(screen);
    case Interrupted::kUpgrade:
      return handler_for<Interrupted::kUpgrade>(screen);
    case Interrupted::kRollback:
      return handler_for<Interrupted::kRollback>(screen);
  }
  return SIG_DFL;
}

}  // namespace

void leave_on_interrupt(Interrupted what, Screen screen) {
  struct sigaction action = {};
  if (::sigaction(SIGINT, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) {
    return;
  }
  action = {};
  action.sa_handler = handler_for(what, screen);
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace einhorn::shell
