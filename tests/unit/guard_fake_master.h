// A guard under test: it runs in a process of its own, and its masters are puppets of the test.
//
// A puppet is this test program again, started by the guard as its master. It connects to the test
// and passes on every message of the guard (descriptors too), and to the guard every message of the
// test, except those that begin with "!": they are for the puppet itself:
//
//   !exit N       exits with that status
//   !echo         answers "echo"
//   !child        makes a sibling, a child of the guard, that waits to be killed; answers its pid
//   !orphan       the same, but made by a process that has ended since
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "guard/guard.h"
#include "guard/linux_system.h"
#include "os/unique_fd.h"

namespace einhorn::guard::testing {

inline constexpr int kPatienceMs = 10'000;

struct Said {
  std::string text;
  std::vector<os::UniqueFd> fds;
};

// One master that the guard started; it ends when this does.
class Puppet {
 public:
  explicit Puppet(os::UniqueFd wire);
  [[nodiscard]] pid_t pid() const { return pid_; }
  // The guard's next message. If none comes the test is over, by an exception.
  Said next();
  // The same, but what it was handed at the start is expected and dropped, up to X_EINHORN_GO.
  std::vector<std::pair<std::string, os::UniqueFd>> take_over();
  [[nodiscard]] bool is_silent(int milliseconds);  // nothing arrives for so long
  void tell(const std::string& text, int fd = -1);
  void ready() { tell("READY=1"); }
  pid_t child(const std::string& how = "!child");
  void sync();  // what it was told before has reached the guard's inbox
  void kill();

 private:
  os::UniqueFd wire_;
  pid_t pid_ = 0;
};

class GuardTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Changes what the guard is made of; called in its process, before run().
  std::function<void(Plan&, Guard&)> prepare;

  void start();
  Puppet master();                // the next one that the guard starts
  Puppet ready_master();          // which acts
  int guard_end();                // waits for its end: the exit status, or minus the signal
  void signal(int number) const;  // to the guard
  std::string log();              // what it has said so far
  bool log_says(const std::string& text);  // waits for it
  [[nodiscard]] pid_t guard() const { return guard_; }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
  os::UniqueFd listener_;
  os::UniqueFd log_;
  std::string said_;
  pid_t guard_ = -1;
  std::unique_ptr<Plan> plan_;
};

// 'R', 'S', 'Z' and so on; 0: there is no such process.
[[nodiscard]] char process_state(pid_t pid);
// Whether that comes true in time.
[[nodiscard]] bool comes_true(const std::function<bool()>& what);

// From now on this process is ended by any allocation.
void forbid_allocation();

}  // namespace einhorn::guard::testing
