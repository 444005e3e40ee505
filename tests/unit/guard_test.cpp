// The guard with masters that are puppets: what it keeps, whom it starts, what it tells and when it
// goes. In all of these tests the guard is ended by any allocation once it runs.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "guard_fake_master.h"

namespace einhorn::guard::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A memory file that holds that text; the caller's to close.
int file_with(const std::string& text) {
  const int fd = memfd_create("kept", MFD_CLOEXEC);
  EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  return fd;
}

std::string content_of(const os::UniqueFd& fd) {
  std::array<char, 256> buffer{};
  const ssize_t count = pread(fd.get(), buffer.data(), buffer.size(), 0);
  return {buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
}

using Kept = std::set<std::pair<std::string, std::string>>;

Kept contents(const std::vector<std::pair<std::string, os::UniqueFd>>& kept) {
  Kept all;
  for (const auto& [name, fd] : kept) {
    all.emplace(name, content_of(fd));
  }
  return all;
}

std::string exited(pid_t pid, int code, int status) {
  return "X_EINHORN_EXITED=" + std::to_string(pid) + " " + std::to_string(code) + " " +
         std::to_string(status);
}

TEST(NoAllocation, IsReallyWatched) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer has its own allocator";
#endif
  EXPECT_DEATH(
      {
        forbid_allocation();
        ::operator delete(::operator new(1000));
      },
      "an allocation after the guard began to run");
}

// --- starting masters
// -----------------------------------------------------------------------------
TEST_F(GuardTest, HandsAMasterEverythingThatIsKept) {
  prepare = [](Plan&, Guard& guard) {
    EXPECT_TRUE(guard.store(file_with("one"), "snapshot"));
    EXPECT_TRUE(guard.store(file_with("two"), "listen:0"));
    EXPECT_TRUE(guard.store(file_with("three"), "listen:0"));  // replaces
    const int refused = file_with("");
    if (guard.store(refused, "") || guard.store(refused, std::string(kNameBytes, 'n'))) {
      _exit(55);
    }
  };
  start();
  Puppet first = master();
  EXPECT_EQ(contents(first.take_over()), (Kept{{"snapshot", "one"}, {"listen:0", "three"}}));
}

TEST_F(GuardTest, HandsOverMoreThanOneMessageHolds) {
  prepare = [](Plan&, Guard& guard) {
    for (int i = 0; i < 150; ++i) {
      guard.store(file_with(std::to_string(i)), "listen:" + std::to_string(i));
    }
  };
  start();
  Puppet first = master();
  const auto kept = first.take_over();
  ASSERT_EQ(kept.size(), 150u);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(kept[i].first, "listen:" + std::to_string(i));
    EXPECT_EQ(content_of(kept[i].second), std::to_string(i));
  }
}

TEST_F(GuardTest, StartsAMasterWhateverNumberItsSocketGets) {
  prepare = [](Plan& plan, Guard&) {
    // The guard's own signal descriptor and one end of the pair come before the other end.
    const int lowest = dup(0);
    close(lowest);
    plan.control = lowest + 2;
  };
  start();
  Puppet first = master();
  first.take_over();
}

TEST_F(GuardTest, StartsAnotherMasterAtOnceWhenOneIsKilled) {
  start();
  Puppet first = ready_master();
  first.kill();
  Puppet second = ready_master();
  EXPECT_NE(first.pid(), second.pid());
  EXPECT_TRUE(log_says("the master (pid " + std::to_string(first.pid()) +
                       ") was killed by signal 9; starting it again in 0 ms"));
  second.tell("!exit 0");  // without a word that is a failure too
  Puppet third = ready_master();
  EXPECT_TRUE(log_says("the master (pid " + std::to_string(second.pid()) +
                       ") exited with status 0; starting it again"));
}

TEST_F(GuardTest, KeepsWhatMastersGiveIt) {
  prepare = [](Plan&, Guard& guard) { guard.store(file_with("old"), "snapshot"); };
  start();
  Puppet first = ready_master();
  const os::UniqueFd fresh(file_with("new"));
  const os::UniqueFd more(file_with("more"));
  const os::UniqueFd brief(file_with("brief"));
  first.tell("FDSTORE=1\nFDNAME=snapshot", fresh.get());
  first.tell("FDSTORE=1\nFDNAME=listen:7", more.get());
  first.tell("FDSTORE=1\nFDNAME=gone", brief.get());
  first.tell("FDSTOREREMOVE=1\nFDNAME=gone");
  first.tell("FDSTOREREMOVE=1\nFDNAME=never-there");
  first.tell("FDSTORE=1", brief.get());  // without a name: refused
  EXPECT_TRUE(log_says("no room to keep descriptor"));
  first.kill();
  Puppet second = master();
  EXPECT_EQ(contents(second.take_over()), (Kept{{"snapshot", "new"}, {"listen:7", "more"}}));
}

TEST_F(GuardTest, GivesUpOnAMasterThatNeverComesUp) {
  prepare = [](Plan&, Guard&) { setenv("PUPPET_FAILS", "1", 1); };
  start();
  EXPECT_EQ(guard_end(), 1);
  EXPECT_THAT(log(), HasSubstr("exited with status 3"));
  EXPECT_THAT(log(), HasSubstr("no master could be started, giving up"));
}

TEST_F(GuardTest, PausesBetweenStartsAfterManyQuickDeathsOnly) {
  start();
  for (int i = 0; i < 12; ++i) {
    Puppet puppet = ready_master();
    puppet.sync();
    puppet.kill();
  }
  ready_master();
  EXPECT_THAT(log(), HasSubstr("killed by signal 9; starting it again in 0 ms"));
  EXPECT_THAT(log(), HasSubstr("killed by signal 9; starting it again in 20 ms"));
  EXPECT_THAT(log(), HasSubstr("killed by signal 9; starting it again in 40 ms"));
}

// --- leaving
// --------------------------------------------------------------------------------------
TEST_F(GuardTest, LeavesWithTheMastersWord) {
  start();
  Puppet first = ready_master();
  first.tell("EXIT_STATUS=7");
  EXPECT_TRUE(first.is_silent(50)) << "not before the master has gone";
  EXPECT_NE(process_state(guard()), 'Z');
  first.tell("!exit 0");
  EXPECT_EQ(guard_end(), 7);
}

TEST_F(GuardTest, TheWordCountsHoweverTheMasterDies) {
  start();
  Puppet first = ready_master();
  first.tell("EXIT_STATUS=0");
  first.sync();
  first.kill();
  EXPECT_EQ(guard_end(), 0);
}

TEST_F(GuardTest, RemovesItsOwnFilesAndNoOthers) {
  const auto make = [this](const std::string& name, const std::string& text) {
    std::ofstream(path(name)) << text;
  };
  for (const char* name : {"socket", "replaced", "linked", "untouched"}) {
    make(name, name);
  }
  prepare = [this](Plan& plan, Guard&) {
    for (const char* name : {"socket", "replaced", "linked"}) {
      struct stat status {};
      stat(path(name).c_str(), &status);
      OwnFile& file = plan.files[plan.file_count++];
      path(name).copy(file.path.data(), kPathBytes - 1);
      file.device = status.st_dev;
      file.inode = status.st_ino;
    }
    std::ofstream(path("pid")) << getpid();
    path("pid").copy(plan.pidfile.data(), kPathBytes - 1);
  };
  start();
  Puppet first = ready_master();
  make("other", "somebody else's");
  std::filesystem::rename(path("other"), path("replaced"));
  std::filesystem::rename(path("linked"), path("moved"));
  std::filesystem::create_symlink(path("moved"), path("linked"));
  EXPECT_TRUE(std::filesystem::exists(path("pid")));
  first.tell("EXIT_STATUS=0");
  first.tell("!exit 0");
  EXPECT_EQ(guard_end(), 0);
  EXPECT_FALSE(std::filesystem::exists(path("socket")));
  EXPECT_FALSE(std::filesystem::exists(path("pid")));
  EXPECT_TRUE(std::filesystem::exists(path("replaced"))) << "it was somebody else's by then";
  EXPECT_TRUE(std::filesystem::is_symlink(path("linked")));
  EXPECT_TRUE(std::filesystem::exists(path("moved")));
  EXPECT_TRUE(std::filesystem::exists(path("untouched")));
}

TEST_F(GuardTest, LeavesAPidFileThatNamesAnother) {
  for (const std::string& text : {std::string("1"), std::string(""), std::string("nonsense")}) {
    std::ofstream(path("pid")) << text;
    prepare = [this](Plan& plan, Guard&) { path("pid").copy(plan.pidfile.data(), kPathBytes - 1); };
    start();
    Puppet first = ready_master();
    first.tell("EXIT_STATUS=0");
    first.tell("!exit 0");
    EXPECT_EQ(guard_end(), 0);
    EXPECT_TRUE(std::filesystem::exists(path("pid"))) << text;
  }
}

// --- signals
// --------------------------------------------------------------------------------------
TEST_F(GuardTest, PassesSignalsOnAndSurvivesThem) {
  start();
  Puppet first = ready_master();
  for (const int number :
       {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGALRM}) {
    signal(number);
    EXPECT_EQ(first.next().text, "X_EINHORN_SIGNAL=" + std::to_string(number));
    first.tell("X_EINHORN_SIGNALED=" + std::to_string(number));
  }
  signal(SIGPIPE);
  EXPECT_TRUE(first.is_silent(50));
  EXPECT_NE(process_state(guard()), 'Z');
}

TEST_F(GuardTest, KeepsSignalsForAMasterThatActs) {
  start();
  Puppet first = master();
  first.take_over();
  signal(SIGHUP);
  signal(SIGTERM);
  EXPECT_TRUE(first.is_silent(50)) << "it does not act yet";
  first.kill();
  Puppet second = master();
  second.take_over();
  EXPECT_TRUE(second.is_silent(50));
  second.ready();
  const std::set<std::string> told = {second.next().text, second.next().text};
  EXPECT_EQ(told, (std::set<std::string>{"X_EINHORN_SIGNAL=" + std::to_string(SIGHUP),
                                         "X_EINHORN_SIGNAL=" + std::to_string(SIGTERM)}));
}

TEST_F(GuardTest, TellsTheNextMasterWhatTheLastOneDidNotActOn) {
  start();
  Puppet first = ready_master();
  signal(SIGTERM);
  EXPECT_EQ(first.next().text, "X_EINHORN_SIGNAL=" + std::to_string(SIGTERM));
  signal(SIGHUP);
  EXPECT_EQ(first.next().text, "X_EINHORN_SIGNAL=" + std::to_string(SIGHUP));
  first.tell("X_EINHORN_SIGNALED=" + std::to_string(SIGHUP));
  first.sync();
  first.kill();
  Puppet second = ready_master();
  EXPECT_EQ(second.next().text, "X_EINHORN_SIGNAL=" + std::to_string(SIGTERM));
  EXPECT_TRUE(second.is_silent(50)) << "HUP had been acted on";
}

// --- hand-off
// -----------------------------------------------------------------------------------------
class HandOff : public GuardTest {
 protected:
  // A successor of that master: a process, and our end of its socket. It says that it is up.
  pid_t begin(Puppet& old) {
    std::array<int, 2> pair{};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()),
              0);
    const pid_t successor = old.child();
    old.tell("X_EINHORN_SUCCESSOR=" + std::to_string(successor), pair[0]);
    close(pair[0]);
    ours_.reset(pair[1]);
    say("X_EINHORN_HELLO=1");
    EXPECT_EQ(old.next().text, "X_EINHORN_FREEZE=1");
    return successor;
  }
  void say(const std::string& text) {
    EXPECT_EQ(write(ours_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::string hear() {
    std::array<char, 256> text{};
    ssize_t count = -1;
    EXPECT_TRUE(
        comes_true([&] { return (count = read(ours_.get(), text.data(), text.size())) > 0; }));
    return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
  }

 private:
  os::UniqueFd ours_;
};

TEST_F(HandOff, ASuccessorThatWasToldToGoIsTheMasterWhenTheOldOneDies) {
  start();
  Puppet old = ready_master();
  const pid_t successor = begin(old);
  old.tell("X_EINHORN_FROZEN=1");
  EXPECT_EQ(hear(), "X_EINHORN_GO=2");
  old.kill();
  EXPECT_TRUE(log_says("died during a hand-off; pid " + std::to_string(successor) + " goes on"));
  EXPECT_NE(process_state(successor), 'Z') << "it may have begun to act";
  say("READY=1");
  signal(SIGHUP);
  EXPECT_EQ(hear(), "X_EINHORN_SIGNAL=" + std::to_string(SIGHUP));
  kill(successor, SIGKILL);
  ready_master();
}

TEST_F(HandOff, ASuccessorThatWasToldNothingIsEndedWhenTheOldOneDies) {
  start();
  Puppet old = ready_master();
  const pid_t successor = begin(old);
  old.kill();
  Puppet next = ready_master();
  EXPECT_EQ(next.next().text, exited(successor, CLD_KILLED, SIGKILL));
}

TEST_F(HandOff, OfASuccessorWhoseEndWasToldAlreadyNothingMoreIsSaid) {
  start();
  Puppet old = ready_master();
  const pid_t successor = old.child();
  ASSERT_EQ(kill(successor, SIGKILL), 0);
  EXPECT_EQ(old.next().text, exited(successor, CLD_KILLED, SIGKILL));
  std::array<int, 2> pair{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), 0);
  old.tell("X_EINHORN_SUCCESSOR=" + std::to_string(successor), pair[0]);
  EXPECT_TRUE(old.is_silent(100)) << "the master may have begun another hand-off by now";
  close(pair[0]);
  close(pair[1]);
}

// --- the dead
// -------------------------------------------------------------------------------------
TEST_F(GuardTest, TellsHowChildrenEndedAndReapsThem) {
  start();
  Puppet first = ready_master();
  for (int i = 0; i < 3; ++i) {
    const pid_t child = first.child();
    EXPECT_EQ(kill(child, SIGKILL), 0);
    EXPECT_EQ(first.next().text, exited(child, CLD_KILLED, SIGKILL));
    EXPECT_TRUE(comes_true([&] { return process_state(child) == '\0'; })) << "not reaped";
  }
}

TEST_F(GuardTest, TellsEachDeathOnceEvenIfAsked) {
  start();
  Puppet first = ready_master();
  std::set<std::string> wanted;
  std::vector<pid_t> children;
  for (int i = 0; i < 40; ++i) {
    children.push_back(first.child());
    wanted.insert(exited(children.back(), CLD_KILLED, SIGKILL));
  }
  for (const pid_t child : children) {
    kill(child, SIGKILL);
  }
  for (const pid_t child : children) {
    first.tell("X_EINHORN_REAP=" + std::to_string(child));
  }
  std::set<std::string> told;
  for (int i = 0; i < 40; ++i) {
    EXPECT_TRUE(told.insert(first.next().text).second) << "twice";
  }
  EXPECT_EQ(told, wanted);
  first.tell("X_EINHORN_REAP=" + std::to_string(children[0]));
  first.tell("X_EINHORN_REAP=1");
  first.tell("X_EINHORN_REAP=nonsense");
  EXPECT_TRUE(first.is_silent(50));
}

TEST_F(GuardTest, SaysNothingOfWhoIsAlive) {
  start();
  Puppet first = ready_master();
  const pid_t child = first.child();
  first.tell("X_EINHORN_REAP=" + std::to_string(child));
  EXPECT_TRUE(first.is_silent(50));
  EXPECT_NE(process_state(child), '\0');
}

TEST_F(GuardTest, TheDeadStayUntilAMasterActs) {
  start();
  Puppet first = ready_master();
  const pid_t child = first.child();
  first.kill();
  Puppet second = master();
  second.take_over();
  EXPECT_EQ(kill(child, SIGKILL), 0);
  EXPECT_TRUE(comes_true([&] { return process_state(child) == 'Z'; }));
  EXPECT_TRUE(second.is_silent(1200)) << "also when the guard sweeps";
  EXPECT_EQ(process_state(child), 'Z') << "its pid must stay its own";
  second.ready();
  EXPECT_EQ(second.next().text, exited(child, CLD_KILLED, SIGKILL));
  EXPECT_TRUE(comes_true([&] { return process_state(child) == '\0'; }));
}

// One SIGCHLD may stand for several deaths: of a worker and of the master, too.
TEST_F(GuardTest, NoticesAMastersDeathBehindAWorkersDeath) {
  start();
  Puppet first = ready_master();
  const pid_t child = first.child();
  signal(SIGSTOP);
  ASSERT_TRUE(comes_true([&] { return process_state(guard()) == 'T'; }));
  kill(child, SIGKILL);
  ASSERT_TRUE(comes_true([&] { return process_state(child) == 'Z'; }));
  first.kill();
  ASSERT_TRUE(comes_true([&] { return process_state(first.pid()) == 'Z'; }));
  signal(SIGCONT);
  Puppet second = ready_master();
  EXPECT_EQ(second.next().text, exited(child, CLD_KILLED, SIGKILL));
}

TEST_F(GuardTest, NoticesDeathsThatShareASignal) {
  start();
  Puppet first = ready_master();
  std::vector<pid_t> children;
  std::set<std::string> wanted;
  for (int i = 0; i < 10; ++i) {
    children.push_back(first.child());
    wanted.insert(exited(children.back(), CLD_KILLED, SIGKILL));
  }
  signal(SIGSTOP);
  ASSERT_TRUE(comes_true([&] { return process_state(guard()) == 'T'; }));
  for (const pid_t child : children) {
    kill(child, SIGKILL);
    ASSERT_TRUE(comes_true([&] { return process_state(child) == 'Z'; }));
  }
  signal(SIGCONT);
  std::set<std::string> told;
  for (int i = 0; i < 10; ++i) {
    told.insert(first.next().text);
  }
  EXPECT_EQ(told, wanted);
}

TEST_F(GuardTest, SweepsUpOrphansToo) {
  start();
  Puppet first = ready_master();
  const pid_t orphan = first.child("!orphan");
  const std::string parents_end = first.next().text;
  EXPECT_THAT(parents_end, ::testing::EndsWith(" 1 0")) << "who made it has ended";
  ASSERT_EQ(kill(orphan, SIGKILL), 0);
  EXPECT_EQ(first.next().text, exited(orphan, CLD_KILLED, SIGKILL));
  EXPECT_TRUE(comes_true([&] { return process_state(orphan) == '\0'; }));
}

}  // namespace
}  // namespace einhorn::guard::testing
