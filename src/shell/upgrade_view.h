// Watching an upgrade: a bar below what the master says, and what Ctrl-C means meanwhile.
#pragma once

#include <optional>
#include <string>

#include "client/deadline.h"
#include "shell/interrupt.h"
#include "shell/progress.h"
#include "shell/session.h"
#include "shell/terminal.h"

namespace einhorn::shell {

// Lives as long as one command that the master answers bit by bit. How far the upgrade is, it asks
// by a connection of its own: not while it has just asked, and the more seldom the longer the
// master takes to answer. A master that doesn't tell (a Ruby one) gets no bar.
class UpgradeView {
 public:
  struct Setup {
    Interrupted on_interrupt = Interrupted::kUpgrade;
    bool typed = false;  // standard input is a terminal
    bool bar = false;    // standard output is a terminal that can redraw
  };

  UpgradeView(const Session& session, const Setup& setup) : session_(session), setup_(setup) {}
  ~UpgradeView() { end(); }
  UpgradeView(const UpgradeView&) = delete;
  UpgradeView& operator=(const UpgradeView&) = delete;

  // The master will say more, or no more: to be called before a message is shown that says so, as
  // whoever has seen it may press Ctrl-C. Both make room for the message.
  void begin();
  void end();
  // Shows how far it is, as far as is known, and finds out more if it is time to: behind a message,
  // and now and then while none comes. Nothing unless it has begun.
  void show();

 private:
  void ask();
  void draw();

  const Session& session_;
  Setup setup_;
  StatusLine line_{1};
  std::optional<Progress> progress_;
  client::Deadline next_ = client::Deadline::after(Duration::zero());  // ask then
  int failures_ = 0;                                                   // in a row
  bool begun_ = false;
};

}  // namespace einhorn::shell
