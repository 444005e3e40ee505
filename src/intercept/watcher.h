// One worker's notifications, answered on a thread of their own: a program that makes us wait (with
// memory that never comes) makes only itself wait.
//
// A notification that was received is answered before the thread leaves; what has not been received
// waits for whoever watches next.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "intercept/desk.h"
#include "os/unique_fd.h"

namespace einhorn::intercept {

struct Watched {
  Asker asker;
  os::UniqueFd notify;
};

// Shared by all threads of one supervisor.
struct Watch {
  Watch(Desk& the_desk, Reports& the_reports, int to_leave)
      : desk(the_desk), reports(the_reports), leave(to_leave) {}

  Desk& desk;
  Reports& reports;
  int leave = -1;             // becomes readable when all are to leave
  std::atomic<int> busy = 0;  // threads that have received something and not answered it yet
  std::mutex mutex;
  std::multiset<Epoch> watched;  // by `mutex`; twice if an epoch was given anew
};

[[nodiscard]] bool is_watched(Watch& watch, Epoch worker);

// For the log: an epoll set of the program held its descriptor before it was replaced.
void tell_in_epoll(Reports& reports, const Asker& asker, const Ask& ask, const std::string& epoll);

// Starts the thread; it ends by itself when nobody is under the filter any more, or at `leave`.
// False: there is no room for one more thread.
[[nodiscard]] bool start_watching(std::shared_ptr<Watch> watch, Watched watched);

}  // namespace einhorn::intercept
