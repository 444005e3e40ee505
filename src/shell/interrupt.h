// What Ctrl-C does: it always ends the shell at once, and the master goes on with what it does. How
// it is said depends on what the shell is doing, so whoever begins something says so here.
#pragma once

namespace einhorn::shell {

enum class Interrupted {
  kNothing,   // a prompt, a command: leave quietly, with status 0
  kUpgrade,   // say that it goes on, and leave with status 130
  kRollback,  // the same
};

// What is done with the screen before.
enum class Screen {
  kAsItIs,
  kNewLine,    // on standard error: the terminal has shown ^C in the current line
  kClearLine,  // on standard output: a status line may be shown there
};

// From now on SIGINT ends the process in that way. One that the caller has chosen to ignore (for a
// job in the background) stays ignored.
void leave_on_interrupt(Interrupted what, Screen screen);

}  // namespace einhorn::shell
