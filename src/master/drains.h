// Stop signals that wait until a worker has finished what it has (`--drain`): its share of accepting
// is taken away by the supervisor of intercepted programs, which then says when its connections are
// over (intercept/drain.h). At the latest after `patience` the signal is sent.
//
// A withheld signal is part of the worker's record in the snapshot: the next master goes on with it.
// Nothing here is needed for a worker's end: without a supervisor it is only later.
#pragma once

#include <functional>
#include <map>
#include <optional>

#include "base/ids.h"
#include "base/instant.h"

namespace einhorn::master {

class Interceptor;

class Drains {
 public:
  struct Hooks {
    std::function<void(WorkerId, int signal)> deliver;
  };

  Drains(Interceptor& interceptor, Duration patience, Hooks hooks)
      : interceptor_(interceptor), patience_(patience), hooks_(std::move(hooks)) {}

  // From the moment `since`. A second one for the same worker takes the first one's place.
  void withhold(WorkerId worker, Pid pid, int signal, Instant since);
  // The signal that a worker has not got yet; 0 none.
  [[nodiscard]] int withheld(WorkerId worker) const;
  // It has drained, or can't.
  void on_drained(WorkerId worker);
  // It is gone, or is killed.
  void forget(WorkerId worker) { waiting_.erase(worker); }

  [[nodiscard]] std::optional<Instant> next_deadline() const;
  void turn(Instant now);
  // A new supervisor has to be asked anew.
  void ask_again();

 private:
  struct Waiting {
    Pid pid = 0;
    int signal = 0;
    Instant until;
  };
  Interceptor& interceptor_;
  Duration patience_;
  Hooks hooks_;
  std::map<WorkerId, Waiting> waiting_;
};

}  // namespace einhorn::master
