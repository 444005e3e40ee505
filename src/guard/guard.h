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
//     READY=1                               it has read the snapshot and acts
//     FDSTORE=1, FDNAME=name                keep the attached descriptor; a name kept before is
//     replaced FDSTOREREMOVE=1, FDNAME=name          forget it X_EINHORN_SIGNALED=n what that
//     signal asked for is done and written down X_EINHORN_REAP=pid                    that child is
//     dead: say how it ended EXIT_STATUS=n                         the master's word: when it
//     exits, exit with n X_EINHORN_SUCCESSOR=pid               that child is to be the next master;
//     attached: the guard's end of
//                                           a socket pair whose other end it has
//     X_EINHORN_FROZEN=1                    all is written down; it does nothing more
//     X_EINHORN_RENEW=1                     attached: the program to become, in this pid, with
//     everything kept X_EINHORN_RENEW=2                     the same, to leave the pool to
//     --reexec-as in this pid
//   successor to guard
//     X_EINHORN_HELLO=1                     it is up and waits for X_EINHORN_GO
//   guard to master
//     X_EINHORN_FDS=1, a name a line        the descriptors kept, attached in that order
//     X_EINHORN_GO=1                        that was all: read the snapshot and act (2: as a
//     successor) X_EINHORN_FREEZE=1                    the successor is up: stop acting, say FROZEN
//     X_EINHORN_THAW=1                      the successor is gone: act again
//     X_EINHORN_LEAVE=1                     the successor acts: leave
//     X_EINHORN_EXITED=pid code status      a child ended: code and status as in siginfo_t
//     X_EINHORN_SIGNAL=n                    the guard got that signal
//
// Hand-off: SUCCESSOR, HELLO, FREEZE, FROZEN, descriptors and GO, READY, LEAVE. While a master is
// frozen it is told nothing; if the successor dies before its READY the old one is thawed, if the
// frozen one dies the successor is ended and a master is started as after any death.
//
// Renewal: the guard writes down what it has in a memory file and executes the program it was
// given, in its own pid; that one reads (guard/renewal.h) and goes on. Master and workers notice
// nothing.
//
// A dead child is reaped only after the message about it was sent, so that its pid can't be used
// again before the master can know; while there is no master nobody is reaped.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string_view>

#include "base/limits.h"

namespace einhorn::guard {

inline constexpr std::size_t kNameBytes = 48;
inline constexpr std::size_t kPathBytes = 4096;
inline constexpr std::size_t kSocketPathBytes = 112;  // more than a socket can be named by
inline constexpr std::size_t kMaxSocketFiles = 64;

// A file that goes when the guard leaves, if it is still the one that we made.
struct OwnFile {
  std::array<char, kSocketPathBytes> path{};
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

// What the guard needs to know, gathered before it runs. Big: lives in static storage or on the
// heap.
struct Plan {
  int program = -1;   // O_PATH descriptor of our own executable
  int control = 199;  // the number at which a master finds its end of the socket pair
  // argv of a master: PROGRAM --with-state-fd CONTROL -- COMMAND...; also of a renewed guard, with
  // another number.
  char** arguments = nullptr;
  char* const* environment = nullptr;  // of a master
  // The soft limit of open files (RLIMIT_NOFILE) for masters and a renewed guard, so that workers
  // get the one that we were started with, not the one that we raised for ourselves. 0: ours.
  std::uint64_t soft_descriptors = 0;
  std::array<OwnFile, kMaxSocketFiles> files;
  std::size_t file_count = 0;
  std::array<char, kPathBytes> pidfile{};
  std::array<char, kPathBytes> log_file{};  // "": standard error
  bool log_json = false;
  // Taking a pool over from a master whose guard died: it waits at the other end of this socket
  // until a master of ours acts, and goes on itself if none ever does. -1: not so.
  int predecessor = -1;
  std::array<char, 108> notify_socket{};  // of our own service manager; "" none
};

class Guard {
 public:
  explicit Guard(Plan& plan);
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  // Keeps a descriptor under a name, before or while running. False: no room, or the name is too
  // long.
  bool store(int fd, std::string_view name);

  // Goes on as the guard of a master that runs already: after this program was renewed.
  // `signals`: a bit for each that the master has not confirmed yet.
  void adopt(pid_t master, int control, std::uint64_t signals);

  // Blocks the signals it handles, starts the master and stays until the pool is over.
  // Returns the exit status for main.
  int run();

 private:
  struct Stored {  // not initialized: entries that are not used cost no memory
    int fd;
    std::array<char, kNameBytes> name;
  };
  struct Child {
    pid_t pid = -1;
    int control = -1;
    bool ready = false;  // it acts and its socket is open
    bool was_ready = false;
    std::int64_t started_ns = 0;
  };

  void start_master();
  bool send_descriptors(const Child& to, const char* go);
  void on_signal_ready();
  void on_control_ready(Child& child);
  void on_message(Child& from, std::string_view text, const int* fds, std::size_t fd_count);
  void on_hand_off_message(Child& from, std::string_view text, const int* fds, std::size_t fd_count,
                           std::size_t* kept);
  void on_ready(Child& from);
  void on_successor_gone();
  void on_master_gone(int code, int status);
  bool tell_master(const char* text);
  void renew(int program, int how);
  void set_inherited(bool inherited);
  // Sets our soft limit of open files; the one before. System calls only.
  static std::uint64_t set_soft_descriptors(std::uint64_t limit);
  void forward_signals();
  void sweep();
  bool report_and_reap(pid_t pid);
  bool handle_dead(pid_t pid, int code, int status);
  void forget(std::string_view name);
  static void close_control(Child& child);
  void write_pidfile();
  void remove_files();
  void tell_manager(const char* text);
  void say(const char* format, ...) __attribute__((format(printf, 2, 3)));

  Plan& plan_;
  std::array<Stored, limits::kMaxStoredDescriptors> stored_;
  std::size_t stored_count_ = 0;
  Child master_;
  Child successor_;      // pid -1: none
  bool frozen_ = false;  // the master was told to freeze
  int signals_ = -1;
  int word_ = -1;  // the master's word: exit status; -1: none given
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
