// The master's side of --capture: gives workers pipes as their standard output and error, keeps
// the reader of these running (capture/reader.h says what is said between them), and asks it for
// the last lines of the dead.
//
// The master itself never reads what a worker writes, and never waits for the reader. The read ends
// are kept by the guard as "out:EPOCH:SLOT:VERSION" and "err:...", before the worker is started: a
// worker finds its pipes open whatever dies here. They are given back when the reader says that
// nobody can write to them any more. A worker for which no pipe could be made, or which would be
// one too many for the guard, keeps the output that it would have had.
#pragma once

#include <cstdint>
#include <deque>
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

namespace einhorn::master {

// The last lines of a dead worker.
struct LastOutput {
  WorkerId worker;
  Version version;
  Pid pid = 0;
  Instant at;
  bool failed = false;                                     // nobody had asked it to go
  bool starting = false;                                   // it had not ACKed
  std::vector<std::pair<std::string, std::string>> lines;  // "stdout" or "stderr", and the line
};

class Capture {
 public:
  struct Hooks {
    std::function<void(Pid)> started;                  // a process that is no worker
    std::function<void(const LastOutput&)> last_said;  // an answer has come
  };

  Capture(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
          Hooks hooks);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // What the guard has kept. False: that name is none of ours.
  bool adopt(std::string_view name, int fd);
  // Whose pipe is kept under that name; none if it is none.
  [[nodiscard]] static std::optional<std::uint64_t> epoch_in(std::string_view name);
  // A worker that lives, after a restart of the master.
  void knows(WorkerId worker, Pid pid);
  // Goes on with the reader that there is, or starts one. `renew`: with another program.
  void start(Instant now, int keep_below, bool renew);

  // Around the spawn of a worker: pipes for it, if there can be any; then what became of it.
  void before_spawn(WorkerId worker, Version version, os::SpawnSpec& spec);
  void after_spawn(WorkerId worker, Pid pid);  // 0: it failed
  // It is dead: its last lines are wanted. They come within kPatience or not at all.
  void ask(LastOutput about, Instant now);
  // Something that was asked for is not there yet.
  [[nodiscard]] bool asking() const { return !asked_.empty(); }

  void reopen() { reader_.send("REOPEN=1"); }
  // The pool is over: false until all is written, or it took too long.
  bool finish(Instant now);

  [[nodiscard]] std::optional<Instant> next_deadline() const;
  void turn(Instant now);
  [[nodiscard]] Companion& companion() { return reader_; }
  // Everything that a new guard has to keep.
  void list(std::vector<std::pair<std::string, int>>& all) const;

  // Of the last workers that died, oldest first.
  [[nodiscard]] const std::deque<LastOutput>& last_outputs() const { return last_; }
  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }

 private:
  struct Pipes {
    int out = -1;
    int error = -1;
    std::uint32_t slot = 0;
    std::uint64_t version = 0;
    Pid pid = 0;
  };
  struct Asked {
    LastOutput about;
    Instant until;
  };
  void tell_pipes(std::uint64_t epoch, const Pipes& pipes);
  void give_back(std::uint64_t epoch);
  void on_message(const os::Message& message);
  void on_tail(const KeyValues& lines);
  [[nodiscard]] static std::string name_of(std::string_view prefix, std::uint64_t epoch,
                                           const Pipes& pipes);

  os::Kernel& kernel_;
  GuardLink& guard_;
  Log& log_;
  const wire::Settings& settings_;
  Hooks hooks_;
  Companion reader_;
  int keep_below_ = 0;
  std::map<std::uint64_t, Pipes> pipes_;  // by epoch
  std::pair<int, int> write_ends_{-1, -1};
  std::vector<Asked> asked_;
  std::deque<LastOutput> last_;
  std::uint64_t dropped_ = 0;
  std::uint64_t dropped_by_reader_ = 0;
  bool refused_ = false;  // it was said that there are too many
  std::optional<Instant> finish_by_;
  bool finished_ = false;
};

}  // namespace einhorn::master
