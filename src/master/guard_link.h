// The master's end of the line to its guard; see guard/guard.h for the messages.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "os/kernel.h"

namespace einhorn::master {

// What the guard says.
struct GuardSignal {
  int signal = 0;
};
struct ChildEnded {
  Pid pid = 0;
  os::Ended how;
};
struct GuardGone {};
struct Go {
  bool successor = false;
  std::optional<std::uint64_t> manager;  // there is a service manager; its WATCHDOG_USEC or 0
};
struct Freeze {};  // the successor is up: stop acting
struct Thaw {};    // the successor is gone: act again
struct LeaveNow {};
struct Kept {  // descriptors under their names; ours to close
  std::vector<std::pair<std::string, int>> fds;
};
using GuardSays =
    std::variant<GuardSignal, ChildEnded, GuardGone, Go, Freeze, Thaw, LeaveNow, Kept>;

class GuardLink {
 public:
  GuardLink(os::Kernel& kernel, int socket) : kernel_(kernel), socket_(socket) {}
  ~GuardLink();
  GuardLink(const GuardLink&) = delete;
  GuardLink& operator=(const GuardLink&) = delete;

  // The next message; none: nothing waits.
  [[nodiscard]] std::optional<GuardSays> next();

  void hello();
  void ready();
  void succeed(Pid successor, int control);
  void frozen();
  void keep(std::string_view name, int fd);
  void forget(std::string_view name);
  void signal_done(int signal);
  void ask_for(Pid pid);
  // The guard becomes that program (how 1) or, through it, --reexec-as (how 2).
  void renew(int program, int how);
  void leave_with(int exit_status);
  // Passed on to the service manager as it is. A descriptor has to live until it is sent.
  void tell_manager(std::string_view text, int fd);
  void close();

  [[nodiscard]] int socket() const { return socket_; }  // -1: the guard is gone
  // Something could not be sent yet: watch for writing and call flush().
  [[nodiscard]] bool blocked() const { return !unsent_.empty(); }
  void flush();

 private:
  void say(std::string text, int fd = -1);
  void drop_unsent(std::string_view name);

  struct Unsent {
    std::string text;
    int fd = -1;  // a duplicate is not needed: a kept descriptor lives as long as its message waits
  };
  os::Kernel& kernel_;
  int socket_;
  std::vector<Unsent> unsent_;
};

}  // namespace einhorn::master
