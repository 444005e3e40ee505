// Taking a worker's share of accepting away, so that it can finish what it has before its stop
// signal (`--drain`), without a line of its code.
//
// For every process of the worker that holds a shared socket:
// - An epoll set that has the socket loses it: we take a duplicate of the set and remove the entry.
//   The program itself is not touched, and is never woken for a new connection again.
// - A descriptor that is in no such set is one that poll, select or accept waits on: it is replaced
//   by an idle one, in the program (replace.h). Nothing ever comes there.
// Then the connections that the worker has accepted are watched (connections.h) until there are none.
// A program that is woken by connections alone would not notice its signal: when it has been sent,
// one empty connection after the other comes to the idle socket until the program is gone.
//
// Each drain is a thread with a table of descriptors of its own (an entry of an epoll set goes by
// its number in the program, so that number is needed here). It holds nothing that anybody waits
// for, and a program that makes it wait makes only its own end wait, up to the master's limit.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "intercept/desk.h"

namespace einhorn::intercept {

class Drains {
 public:
  Drains(Desk& desk, Reports& reports) : desk_(desk), reports_(reports) {}

  // Whether programs are under our filter.
  void set_watched_by_filter(bool watched) { watched_by_filter_ = watched; }
  // Twice for the same worker is once. `pid`: of the worker.
  void begin(const Asker& worker, pid_t pid);
  // It has been told to stop.
  void signaled(Epoch worker);
  // It is gone.
  void ended(Epoch worker);

 private:
  struct Drain;
  static void* thread(void* argument);
  bool watched_by_filter_ = true;
  Desk& desk_;
  Reports& reports_;
  std::map<Epoch, std::shared_ptr<Drain>> drains_;  // of the supervisor's own thread
};

}  // namespace einhorn::intercept
