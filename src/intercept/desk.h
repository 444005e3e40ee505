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

class Desk {
 public:
  explicit Desk(Reports& reports) : reports_(reports) {}

  void set_rules(std::vector<os::InterceptRule> rules, bool tell_all);
  // A shared socket as its -b made it; what it is bound to is asked of the kernel. `backup`:
  // another name of a unix socket's file, from which it comes back when a program removes it; ""
  // none.
  void add(std::uint32_t index, std::string name, int backlog, std::string backup,
           os::UniqueFd socket);
  // A form that an earlier supervisor made.
  void add_form(std::uint32_t index, std::uint32_t number, os::UniqueFd socket);

  [[nodiscard]] Answer on_bind(const Asker& asker, const Ask& ask);
  [[nodiscard]] Answer on_listen(const Asker& asker, const Ask& ask);
  // After the program has got what on_bind gave it.
  void handed(const Asker& asker, const Ask& ask);

  void forget(Epoch worker);

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
    std::optional<bool> nonblocking;  // as the first program wanted it
  };
  struct Entry {
    Shared shared;
    int backlog = 100;
    std::string backup;
    std::deque<Socket> sockets;  // the first is the -b's own
  };
  struct Found {
    Entry* entry = nullptr;
    Socket* socket = nullptr;
  };

  Found find(const Identity& identity);
  Found find_form(const Decision& decision, int* error);
  void prepare(const Asker& asker, const Ask& ask, const std::vector<SetOption>& options,
               Found found);
  void restore_file(const Entry& entry);
  void tell_listening(const Asker& asker, const Entry& entry);
  void tell_unmanaged(const Asker& asker, const Ask& ask);

  Reports& reports_;
  std::mutex mutex_;
  std::vector<os::InterceptRule> rules_;
  bool tell_all_ = false;
  std::deque<Entry> entries_;
  std::vector<Shared> shared_;
  std::set<std::string> told_;  // what needs to be said only once
  std::set<std::pair<Epoch, std::uint32_t>> listening_;
};

}  // namespace einhorn::intercept
