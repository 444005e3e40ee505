// The master's side of interception (`--intercept`): keeps the supervisor running and gives it what
// it answers with; see intercept/supervisor.h for the messages and os/intercept.h for the idea.
//
// Whatever the supervisor needs is also kept by the guard, under these names: "intercept" our end
// of the line, "watch:EPOCH" the notify descriptor of a worker's filter, "form:INDEX:NUMBER" a form
// of a shared socket. A dead supervisor is started again at once; programs wait for it.
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
#include "master/guard_link.h"
#include "master/log.h"
#include "os/kernel.h"
#include "wire/snapshot.h"

namespace einhorn::master {

class Interceptor {
 public:
  static constexpr std::uint64_t kToken = 4;

  struct Hooks {
    std::function<void(WorkerId)> listening;  // that worker's program serves
    std::function<void(Pid)> started;         // a process that is no worker
  };

  Interceptor(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
              Hooks hooks);
  ~Interceptor();
  Interceptor(const Interceptor&) = delete;
  Interceptor& operator=(const Interceptor&) = delete;

  // What the guard has kept. False: that name is none of ours.
  static bool is_ours(std::string_view name);
  void adopt(std::string_view name, int fd);
  // A shared socket; the descriptor stays the caller's.
  void share(const wire::ListenerRecord& record, int fd);
  // Which worker has which filter, after a restart of the master. False: it has none that anybody
  // holds, so whatever it binds will fail.
  [[nodiscard]] bool knows(WorkerId worker);

  // Goes on with the supervisor that there is, or starts one. `renew`: with another program.
  void start(Instant now, int keep_below, bool renew);
  // Takes the notify descriptor over.
  void add(WorkerId worker, int notify);

  void on_ready(const os::Ready& ready, Instant now);
  [[nodiscard]] std::optional<Instant> next_deadline() const { return start_at_; }
  void turn(Instant now);
  // Everything that a new guard has to keep.
  void list(std::vector<std::pair<std::string, int>>& all) const;

 private:
  struct Watch {
    int fd = -1;
    std::optional<WorkerId> worker;
  };
  struct Unsent {
    std::string text;
    int fd = -1;
  };
  void spawn(Instant now);
  void tell_everything(bool adopted);
  void on_gone(Instant now);
  void on_message(const os::Message& message);
  void on_form(const std::vector<std::pair<std::string, std::string>>& lines,
               const std::vector<int>& fds);
  void send(std::string text, int fd = -1);
  void flush();
  void watch_control();

  os::Kernel& kernel_;
  GuardLink& guard_;
  Log& log_;
  const wire::Settings& settings_;
  Hooks hooks_;
  int control_ = -1;
  bool writable_watched_ = false;
  int keep_below_ = 0;
  std::map<std::uint32_t, std::pair<wire::ListenerRecord, int>> shared_;
  std::map<std::string, int> forms_;  // by the name that the guard has for it
  std::map<std::uint64_t, Watch> watches_;
  std::vector<Unsent> unsent_;
  std::optional<Instant> start_at_;
  Instant started_at_;
  Duration delay_{0};
  bool leaving_ = false;  // it was told to leave, for another program
};

}  // namespace einhorn::master
