// The desk where programs ask for sockets: holds the shared ones in all their forms and answers
// each bind and listen.
//
// Invariants: a program gets a shared socket only under the address that it asked for; a shared
// socket listens with our backlog, from the first listen on; a form, once made, stays for the life
// of the pool, kept by the guard. Used by many threads: each program is looked at outside the lock.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.h"
#include "intercept/ask.h"
#include "intercept/carried.h"
#include "intercept/reports.h"
#include "intercept/rules.h"
#include "os/unique_fd.h"

namespace einhorn::intercept {

struct Answer {
  enum class Kind {
    kContinue,  // the kernel is to do the call as if nobody watched
    kDone,      // it has been done: 0
    kError,     // it fails with `error`
    kShare,     // the program's descriptor becomes `fd`, and then 0
  };
  Kind kind = Kind::kContinue;
  int error = 0;
  int fd = -1;  // the desk's own
};

// Who asks.
struct Asker {
  Epoch worker;
  std::uint32_t slot = 0;
};

// A shared socket for a drain (drain.h).
struct DrainSocket {
  os::UniqueFd fd;  // a duplicate
  Identity identity;
  Shared shared;  // with the address of this form
};

class Desk {
 public:
  explicit Desk(Reports& reports);

  void set_rules(std::vector<os::InterceptRule> rules, bool tell_all);
  // A shared socket as its -b made it; what it is bound to is asked of the kernel. `backup`:
  // another name of a unix socket's file, from which it comes back when a program removes it; ""
  // none. `used`: programs may have it already.
  void add(std::uint32_t index, std::string name, int backlog, std::string backup, bool used,
           os::UniqueFd socket);
  // A form that an earlier supervisor made.
  void add_form(std::uint32_t index, std::uint32_t number, os::UniqueFd socket);

  [[nodiscard]] Answer on_bind(const Asker& asker, const Ask& ask);
  [[nodiscard]] Answer on_listen(const Asker& asker, const Ask& ask);
  // After the program has got `fd`, which on_bind gave it.
  void handed(const Asker& asker, const Ask& ask, int fd);
  // A program can shut the shared socket down for all (some do so when they are told to stop): then
  // it listens again. What waited in its queue is lost.
  void listen_again();
  // Of those that listen and can be made to do so again; they hang up when they are shut down.
  [[nodiscard]] std::vector<int> listening_fds();
  // Some programs do not call listen if their socket listens already, as that of another copy does.
  // They count as up when they wait for connections. True: there are some that do not do so yet.
  [[nodiscard]] bool look_for_silent();
  // Becomes readable when there is one more, or one more that listens.
  [[nodiscard]] int news_fd() const { return news_.get(); }

  void forget(Epoch worker);
  [[nodiscard]] std::vector<DrainSocket> sockets();

  // Puts files of unix sockets back that programs have removed.
  void restore_files();
  [[nodiscard]] std::vector<std::string> watched_files();
  // Everything that the master has to know, again.
  void tell_again();

 private:
  struct Socket {
    Form form;
    os::UniqueFd fd;
    Identity identity;
    std::uint32_t number = 0;
    bool listening = false;
    bool used = false;                // some program has it, so that its flags are no longer ours
    std::optional<bool> nonblocking;  // as the first program that we know of wanted it
  };
  struct Entry {
    Shared shared;
    int backlog = 100;
    std::string backup;
    std::deque<Socket> sockets;  // the first is the -b's own
  };
  // A program that has a socket which listens, and has not called listen.
  struct Silent {
    Asker asker;
    std::uint32_t index = 0;
    pid_t pid = 0;
    std::uint64_t inode = 0;
  };
  struct Found {
    Entry* entry = nullptr;
    Socket* socket = nullptr;
  };

  static bool can_listen_again(const Socket& socket);
  Found find(const Identity& identity);
  Found find_form(const Decision& decision, int* error);
  void prepare(const Asker& asker, const Ask& ask, const std::vector<SetOption>& options,
               Found found);
  void restore_file(const Entry& entry);
  void tell_listening(const Asker& asker, const Entry& entry);
  void no_longer_silent(Epoch worker, std::uint32_t index);
  void tell_unmanaged(const Asker& asker, const Ask& ask);

  Reports& reports_;
  std::mutex mutex_;
  std::vector<os::InterceptRule> rules_;
  bool tell_all_ = false;
  std::deque<Entry> entries_;
  std::vector<Shared> shared_;
  std::set<std::string> told_;  // what needs to be said only once
  std::set<std::pair<Epoch, std::uint32_t>> listening_;
  std::vector<Silent> silent_;
  os::UniqueFd news_;
};

}  // namespace einhorn::intercept
