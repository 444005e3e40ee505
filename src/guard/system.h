// What the guard needs of the machine it runs on: every system call it makes is one of these verbs.
//
// There are two: LinuxSystem (guard/linux_system.h), and the simulated one of tests/sim, in which
// the guard lives with many masters. No verb allocates, none but `wait` waits, EINTR never shows.
// Descriptors are plain numbers; unless something else is said they stay the guard's.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace einhorn::guard {

struct Watched {
  int master = -1;           // sockets to be read; -1: none
  bool master_room = false;  // also when something can be sent to it
  int successor = -1;
  std::int64_t until_ns = 0;  // 0: no end
};
struct Awake {
  bool signals = false;
  bool master = false;  // something is there to read, or there is room
  bool master_room = false;
  bool successor = false;
};

struct Signal {
  int number = 0;
  pid_t child = 0;  // of SIGCHLD: one of those that ended
};

// As in siginfo_t: code is CLD_EXITED, CLD_KILLED or CLD_DUMPED, status the exit code or signal.
struct Death {
  pid_t pid = 0;
  int code = 0;
  int status = 0;
};
enum class Look { kDead, kAlive, kNoChild };

struct Message {
  std::array<char, 4096> text;
  std::size_t length = 0;
  std::array<int, 16> fds;  // whoever receives it has to close them
  std::size_t fd_count = 0;
};
enum class Heard { kMessage, kNothing, kClosed };

struct Started {
  pid_t pid = -1;
  int control = -1;  // our end of its socket; the caller's to close
  const char* failed = nullptr;
  int error = 0;  // errno, if something failed
};

class System {
 public:
  System() = default;
  System(const System&) = delete;
  System& operator=(const System&) = delete;
  virtual ~System() = default;

  virtual std::int64_t now_ns() = 0;

  // Takes signals in from now on, and orphans. An errno; 0: done.
  virtual int begin() = 0;
  virtual Awake wait(const Watched& watched) = 0;
  // The next one; false: no more for now. One that was not asked for yet survives `execute`.
  virtual bool next_signal(Signal& signal) = 0;

  virtual Heard receive(int socket, Message& message) = 0;
  virtual bool send(int socket, std::string_view text, std::span<const int> fds) = 0;
  virtual void close(int fd) = 0;
  virtual void set_nonblocking(int fd) = 0;
  virtual void set_inherited(int fd, bool inherited) = 0;  // by the program that we become

  virtual Started start_master() = 0;
  // A child that is dead and not reaped yet, by its pid; 0: any.
  virtual Look look_at(pid_t pid, Death& death) = 0;
  virtual void reap(pid_t pid) = 0;  // of a child that is dead
  virtual void kill(pid_t pid) = 0;  // SIGKILL, to a child that was not reaped

  // Renewal: a file that is inherited, what is written into it, and becoming that program with it.
  virtual int create_state() = 0;                                 // -1: not to be had, see errno
  virtual int write_state(int state, std::string_view text) = 0;  // an errno; 0: done
  virtual int execute(int program, int state) = 0;  // returns only on failure, with errno

  // What others see of us.
  virtual void write_pid_file() = 0;
  virtual void remove_files() = 0;
  // To the service manager, if there is one: a datagram, with descriptors.
  virtual void tell_manager(std::string_view text, std::span<const int> fds) = 0;
  virtual std::int64_t manager_watchdog_us() = 0;  // WATCHDOG_USEC; 0: not wanted; -1: no manager
  virtual void say(const char* message) = 0;       // a line of the log
};

}  // namespace einhorn::guard
