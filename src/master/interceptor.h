// The master's side of interception (`--intercept`): keeps the supervisor running and gives it what
// it answers with; see intercept/supervisor.h for the messages and os/intercept.h for the idea.
//
// Whatever the supervisor needs is also kept by the guard, under these names: "intercept" our end
// of the line (master/companion.h), "watch:EPOCH" the notify descriptor of a worker's filter, "door"
// where programs ask that no filter watches (os/door.h), "form:INDEX:NUMBER" a form of a shared
// socket. Programs wait while there is no supervisor.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "base/key_values.h"
#include "master/companion.h"
#include "master/guard_link.h"
#include "master/log.h"
#include "os/kernel.h"
#include "wire/snapshot.h"

namespace einhorn::master {

class Interceptor {
 public:
  struct Hooks {
    std::function<void(WorkerId)> listening;  // that worker's program serves
    std::function<void(Pid)> started;         // a process that is no worker
    std::function<void(WorkerId)> probed;     // it has answered its probe
    std::function<void(WorkerId)> drained;    // its connections are over, or nobody can say
    std::function<void()> renewed;            // there is a supervisor that knows of no drain
  };

  Interceptor(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
              Hooks hooks);
  ~Interceptor();
  Interceptor(const Interceptor&) = delete;
  Interceptor& operator=(const Interceptor&) = delete;

  // What the guard has kept. False: that name is none of ours.
  bool adopt(std::string_view name, int fd);
  // Whose watch is kept under that name; none if it is none.
  [[nodiscard]] static std::optional<std::uint64_t> epoch_in(std::string_view name);
  // A shared socket; the descriptor stays the caller's.
  void share(const wire::ListenerRecord& record, int fd);
  // Which worker has which filter, after a restart of the master. False: it has none that anybody
  // holds, so whatever it binds will fail.
  [[nodiscard]] bool knows(WorkerId worker);

  // Goes on with the supervisor that there is, or starts one. `renew`: with another program.
  void start(Instant now, int keep_below, bool renew);
  // A worker that was started. Takes the notify descriptor over; -1: it asks at the door.
  void add(WorkerId worker, int notify);
  // It is no worker any more.
  void ended(WorkerId worker);
  // Looks whether it answers, and says so by Hooks::probed.
  void probe(WorkerId worker, Pid pid);
  // Takes its accepting away, and answers by Hooks::drained.
  void drain(WorkerId worker, Pid pid);
  // It has got its stop signal.
  void signaled(WorkerId worker);
  // What an unwatched program needs in its environment.
  [[nodiscard]] std::vector<std::string> environment_for(WorkerId worker) const;

  [[nodiscard]] Companion& companion() { return supervisor_; }
  // Everything that a new guard has to keep.
  void list(std::vector<std::pair<std::string, int>>& all) const;

 private:
  struct Watch {
    int fd = -1;
    std::optional<WorkerId> worker;
  };
  [[nodiscard]] std::optional<WorkerId> worker_of(std::uint64_t epoch) const;
  void tell_everything();
  // `again`: the supervisor may know it already.
  void tell_worker(std::uint64_t epoch, const Watch& watch, bool again);
  void on_message(const os::Message& message);
  void ask(const char* verb, WorkerId worker, Pid pid);
  void on_form(const KeyValues& lines, const std::vector<int>& fds);

  os::Kernel& kernel_;
  GuardLink& guard_;
  Log& log_;
  const wire::Settings& settings_;
  Hooks hooks_;
  Companion supervisor_;
  int door_ = -1;
  std::map<std::uint64_t, WorkerId> unwatched_;  // those that ask at the door, by epoch
  int keep_below_ = 0;
  std::map<std::uint32_t, std::pair<wire::ListenerRecord, int>> shared_;
  std::map<std::string, int> forms_;  // by the name that the guard has for it
  std::map<std::uint64_t, Watch> watches_;
};

}  // namespace einhorn::master
