// Hooks: commands that run before and after steps of the pool's life (docs/hooks.md).
//
// Each is a process of its own, which the loop never waits for: its end, or the end of its time,
// comes back as `ended`. What it writes goes into the log, up to a limit; what is beyond it is read
// and dropped, so that nobody stands still. Of those that something waits for, and of all others, so
// many run at a time; the rest waits its turn.
//
// Each is in the snapshot from before its start to its end, and the guard keeps the pipe that it
// writes to as "hook:NUMBER": a new master goes on with those that run, starts those that waited,
// runs a before-... hook anew if it is gone and nobody knows how it ended, and gives up an
// after-... one, with a line in the log.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "master/guard_link.h"
#include "master/log.h"
#include "os/kernel.h"
#include "pool/hook.h"
#include "wire/snapshot.h"

namespace einhorn::master {

class HookRunner {
 public:
  static constexpr std::uint64_t kOutputToken = std::uint64_t{240} << 40U;
  static constexpr std::uint64_t kDeathToken = std::uint64_t{241} << 40U;

  struct Ended {
    pool::Hook hook = pool::Hook::kNone;
    WorkerId worker;  // epoch 0: of an upgrade
    Version version;
    bool well = true;
    std::string reason;             // "exited with status 1"; "" if all is well
    std::vector<std::string> last;  // lines of what it wrote
    Duration ran{0};
  };
  struct Hooks {
    // Program, arguments, environment, directory; its variables are added to it.
    std::function<Result<os::SpawnSpec>(const wire::HookRecord&)> spec;
    std::function<void(const std::string&)> note;  // an entry for the journal
    std::function<void(const Ended&)> ended;       // said once; not of those that were given up
    std::function<void(Pid)> ghost;                // never ran; its end will be reported
  };

  HookRunner(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
             Hooks hooks);
  ~HookRunner();
  HookRunner(const HookRunner&) = delete;
  HookRunner& operator=(const HookRunner&) = delete;

  // What the last master has left.
  void adopt(const wire::HookRecord& record);
  bool adopt(std::string_view name, int fd);  // false: it is none of ours
  // Goes on with it. `guard`: whose children they are; `same_guard`: it started them. What is to be
  // run before that waits for it.
  void start(Instant now, int keep_below, Pid guard, bool same_guard);

  // Its outcome comes as `ended`; at once, if there is no such command.
  void run(pool::Hook hook, WorkerId worker, Version version, std::vector<std::string> variables,
           Instant now);
  // Whether one runs, or waits to.
  [[nodiscard]] bool has(pool::Hook hook, WorkerId worker) const;
  // Nobody waits for it any more.
  void give_up(pool::Hook hook, WorkerId worker, Instant now);

  void on_output(std::uint64_t number);
  void on_death(std::uint64_t number, Instant now);
  // How a child of the guard ended. False: it was no hook.
  bool on_ended(Pid pid, os::Ended how, Instant now);
  void on_guard_lost();

  void turn(Instant now);
  [[nodiscard]] std::optional<Instant> next_deadline() const;
  // Nothing runs, and nothing waits.
  [[nodiscard]] bool idle() const { return runs_.empty(); }
  void end_all();
  [[nodiscard]] std::size_t count() const { return runs_.size(); }

  // Everything that a new guard has to keep.
  void list(std::vector<std::pair<std::string, int>>& all) const;
  [[nodiscard]] std::map<std::uint64_t, wire::HookRecord> records() const;

 private:
  struct Run {
    wire::HookRecord record;
    int pidfd = -1;
    int output = -1;
    bool own = false;       // our own child: there was no guard when it was started
    bool reported = false;  // its death was seen; how it ended is not known yet
    bool killed = false;
    std::string partial;  // a line that is not complete yet
    std::size_t lines = 0;
    std::uint64_t dropped = 0;  // bytes
    std::deque<std::string> last;
  };
  using Place = std::map<std::uint64_t, Run>::iterator;

  void restart(std::uint64_t number, Instant now);
  void dispatch(Instant now);
  void begin_next(Instant now);
  void begin(std::uint64_t number, Instant now);
  [[nodiscard]] std::optional<Error> spawn(Run& run);
  void read(Run& run, std::size_t reads);
  void take(Run& run, std::string_view bytes);
  void say_line(Run& run, std::string_view line);
  void finish(Place place, const std::string& trouble, Instant now);
  void tell(const Run& run, const std::string& trouble, Instant now);
  void send(Run& run, int signal);
  void close_output(Run& run);
  [[nodiscard]] std::string about(const wire::HookRecord& record) const;
  void log(const Run& run, Level level, std::string_view event, const std::string& text);
  void note(const Run& run) { hooks_.note(wire::encode_entry(run.record)); }
  [[nodiscard]] Duration patience(pool::Hook hook) const;

  os::Kernel& kernel_;
  GuardLink& guard_;
  Log& log_;
  const wire::Settings& settings_;
  Hooks hooks_;
  std::map<std::uint64_t, Run> runs_;
  std::size_t running_before_ = 0;
  std::size_t running_after_ = 0;
  std::uint64_t next_number_ = 1;
  std::uint64_t refused_ = 0;
  int keep_below_ = 0;
  bool started_ = false;
  bool dispatching_ = false;
  bool dispatch_again_ = false;
};

}  // namespace einhorn::master
