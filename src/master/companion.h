// A process beside the master that helps it, and that may be killed at any time: the supervisor of
// interception, the reader of workers' output, the agent.
//
// It is started with one end of a sequenced-packet line, at the number `Settings::control`; each
// message is lines of KEY=VALUE, descriptors attached. Our end is kept by the guard, so a new
// master goes on with the companion that there is, and end of file on it means that it is dead:
// then it is started again, at once if it had lived, else with growing pauses. What it needs to
// know it is told anew (`born`). It stays while there is no master, and leaves at LEAVE=1 and when
// neither master nor guard is at the other end any more. Sending never waits: what finds no room is
// kept until there is some.
//
// Whoever owns one registers it with the master (Master::companions_), whose loop does the rest.
#pragma once

#include <cstdint>
#include <functional>
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

class Companion {
 public:
  // Tokens in the master's loop, one a companion.
  enum Token : std::uint64_t { kInterceptToken = 4, kCaptureToken = 5, kAgentToken = 6 };

  struct About {
    std::string_view name;  // under which the guard keeps our end of the line
    Token token = kInterceptToken;
    std::string_view failed_event;   // for the log: it can't be started
    std::string_view restart_event;  // it has died
    std::string what;                // "The supervisor of programs"
    std::string meanwhile;           // what its absence means: "Programs that bind wait for it."
  };
  struct Hooks {
    // What to run: program, arguments and environment; asked at each start.
    std::function<os::SpawnSpec()> program;
    std::function<void()> born;                    // a new one: tell it everything
    std::function<void(const os::Message&)> said;  // descriptors are the callee's to close
    std::function<void(Pid)> started;              // a process that is no worker
  };

  Companion(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
            About about, Hooks hooks);
  ~Companion();
  Companion(const Companion&) = delete;
  Companion& operator=(const Companion&) = delete;

  // Our own program with these words behind its name, then `--` and the pool's command, for `ps`:
  // what most companions are.
  [[nodiscard]] static os::SpawnSpec our_own_program(const wire::Settings& settings,
                                                     std::vector<std::string> words);

  // Our end of the line, as the guard has kept it. False: that name is not ours.
  bool adopt(std::string_view name, int fd);
  // Goes on with the one that there is, or starts one. `renew`: with another program; the one that
  // there is leaves first. False: the one that there is goes on, and knows what it was told.
  bool start(Instant now, int keep_below, bool renew);
  // It is there, and was not told to leave.
  [[nodiscard]] bool running() const { return line_ >= 0 && !leaving_; }
  // Tells it; nothing if there is none, as a new one is told everything. Descriptors stay the
  // caller's, and open until they were sent, or dropped by drop().
  void send(std::string text, std::vector<int> fds = {});
  // Messages with that descriptor which have not gone out are not sent any more.
  void drop(int fd);

  [[nodiscard]] Token token() const { return about_.token; }
  void on_ready(const os::Ready& ready, Instant now);
  [[nodiscard]] std::optional<Instant> next_deadline() const { return due_; }
  void turn(Instant now);
  // What a new guard has to keep.
  void list(std::vector<std::pair<std::string, int>>& all) const;

 private:
  struct Unsent {
    std::string text;
    std::vector<int> fds;
  };
  void spawn(Instant now);
  void on_gone(Instant now);
  void flush();
  void watch_line();
  void close_line();

  os::Kernel& kernel_;
  GuardLink& guard_;
  Log& log_;
  const wire::Settings& settings_;
  About about_;
  Hooks hooks_;
  int line_ = -1;
  bool writable_watched_ = false;
  int keep_below_ = 0;
  std::vector<Unsent> unsent_;
  std::optional<Instant> due_;  // of the next start; while leaving: how long it may take
  Instant started_at_;
  Duration delay_{0};
  bool leaving_ = false;  // it was told to leave, for another program
};

}  // namespace einhorn::master
