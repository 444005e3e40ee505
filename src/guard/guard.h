// The guard: the process that outlives the master.
//
// It is the pid the world knows. It holds the listening sockets, the command socket, the snapshot
// and whatever else a master gave it to keep; it is the parent of master and workers and reaps
// them; it passes signals on to the master; and when the master dies otherwise than by its own
// decision it starts it again, with the same descriptors. It decides nothing about workers,
// parses no message from anybody but its master, and allocates nothing once `run` has begun.
//
// Guard and master speak over a pair of sequenced-packet sockets; each message is lines of
// KEY=VALUE, as in the notification protocol of systemd's service manager, descriptors attached.
//
//   master to guard
//     READY=1                    it has read the snapshot and acts
//     FDSTORE=1, FDNAME=name     keep the attached descriptor; a name kept before is replaced
//     FDSTOREREMOVE=1, FDNAME=name  forget it
//     X_EINHORN_SIGNALED=n       what that signal asked for is done and written down
//     X_EINHORN_REAP=pid         that child is dead: say how it ended
//     EXIT_STATUS=n              the master's word: when it exits, exit with n
//     X_EINHORN_SUCCESSOR=pid    that child is to be the next master; attached: the guard's end
//                                of a socket pair whose other end it has
//     X_EINHORN_TELL=1           what follows, descriptors too, is for the service manager as it is
//     X_EINHORN_FROZEN=1         all is written down; it does nothing more
//     X_EINHORN_RENEW=1          attached: the program to become, in this pid, with everything kept
//     X_EINHORN_RENEW=2          the same, to leave the pool to --reexec-as in this pid
//   successor to guard
//     X_EINHORN_HELLO=1          it is up and waits for X_EINHORN_GO
//   guard to master
//     X_EINHORN_FDS=1, a name a line  the descriptors kept, attached in that order
//     X_EINHORN_GO=1             that was all: read the snapshot and act (2: as a successor);
//                                X_EINHORN_MANAGER=n behind it: there is a service manager, which
//                                wants a WATCHDOG=1 every n microseconds (0: none)
//     X_EINHORN_FREEZE=1         the successor is up: stop acting, say FROZEN
//     X_EINHORN_THAW=1           the successor is gone: act again
//     X_EINHORN_LEAVE=1          the successor acts: leave
//     X_EINHORN_EXITED=pid code status  a child ended: code and status as in siginfo_t
//     X_EINHORN_SIGNAL=n         the guard got that signal
//
// Hand-off: SUCCESSOR, HELLO, FREEZE, FROZEN, descriptors and GO, READY, LEAVE. While a master is
// frozen it is told nothing; if the successor dies before its READY the old one is thawed. If the
// old one dies, a successor that was told to GO is the master, and one that was not is ended and
// a master is started as after any death.
//
// Renewal: the guard writes down what it has in a memory file and executes the program it was
// given, in its own pid; that one reads (guard/renewal.h) and goes on. Master and workers notice
// nothing.
//
// A dead child is reaped only after the message about it was sent, so that its pid can't be used
// again before the master can know; while there is no master nobody is reaped.
//
// What it decides is here; every system call is behind guard/system.h, so that the same guard runs
// in the simulation.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/limits.h"
#include "guard/system.h"

namespace einhorn::guard {

inline constexpr std::size_t kNameBytes = 48;

class Guard {
 public:
  // A descriptor under its name. Not initialized: entries that are not used cost no memory.
  struct Stored {
    int fd;
    std::array<char, kNameBytes> name;
  };

  explicit Guard(System& system) : system_(system) {}
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  // Keeps a descriptor under a name, before or while running. False: no room, or the name is too
  // long.
  bool store(int fd, std::string_view name);

  // Goes on as the guard of a master that runs already: after this program was renewed.
  // `signals`: a bit for each that the master has not confirmed yet.
  void adopt(pid_t master, int control, std::uint64_t signals);

  // Takes a pool over from a master whose guard died: it waits at the other end of this socket
  // until a master of ours acts, and goes on itself if none ever does.
  void succeed(int predecessor) { predecessor_ = predecessor; }

  // Blocks the signals it handles, starts the master and stays until the pool is over.
  // Returns the exit status for main.
  int run();

  // The same in steps: begin() once, turn() as long as it says true, then end().
  bool begin();
  bool turn();
  int end();

  // What others may see of it.
  [[nodiscard]] std::span<const Stored> stored() const {
    return std::span(stored_).first(stored_count_);
  }
  [[nodiscard]] pid_t master() const { return master_.pid; }   // -1: none
  [[nodiscard]] bool acting() const { return master_.ready; }  // the master is told what happens
  [[nodiscard]] bool handing_off() const { return successor_.pid > 0; }
  [[nodiscard]] int word() const { return word_; }  // exit status; -1: none given

 private:
  struct Child {
    pid_t pid = -1;
    int control = -1;
    bool ready = false;  // it acts and its socket is open
    bool was_ready = false;
    std::int64_t started_ns = 0;
  };

  void start_master();
  bool send_descriptors(const Child& to, std::string_view go);
  void on_signal_ready();
  void on_control_ready(Child& child);
  void on_message(Child& from, const Message& message);
  std::size_t on_hand_off_message(Child& from, const Message& message, std::size_t kept);
  void on_ready(Child& from);
  void on_successor_gone();
  void on_master_gone(int code, int status);
  bool tell_master(std::string_view text);
  void renew(int program, int how);
  int write_state(int state, int how);
  void set_inherited(bool inherited);
  void forward_signals();
  void sweep();
  bool report_and_reap(pid_t pid);
  bool handle_dead(const Death& death);
  void forget(std::string_view name);
  void close_control(Child& child);
  void say(const char* format, ...) __attribute__((format(printf, 2, 3)));

  System& system_;
  std::array<Stored, limits::kMaxStoredDescriptors> stored_;
  std::size_t stored_count_ = 0;
  Child master_;
  Child successor_;  // pid -1: none
  int predecessor_ = -1;
  bool frozen_ = false;  // the master was told to freeze
  bool handed_ = false;  // the successor was given all there is, and may act at any time
  int word_ = -1;        // the master's word: exit status; -1: none given
  bool over_ = false;
  std::uint64_t pending_signals_ = 0;
  std::uint64_t told_signals_ = 0;  // told to the master, which has not confirmed them yet
  bool unreported_ = false;         // somebody is dead whom the master could not be told about yet
  std::int64_t sweep_at_ns_ = 0;    // 0: no sweep planned
  std::int64_t restart_at_ns_ = 0;  // 0: no start planned
  int failures_ = 0;
  bool was_ready_ = false;
};

}  // namespace einhorn::guard
