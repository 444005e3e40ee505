// What a spawned program sees of the world: everything it was given and nothing else.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "os/linux/linux_kernel.h"
#include "os/unique_fd.h"

namespace einhorn::os {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kPatienceMs = 10'000;
constexpr int kReport = 8;  // where the program writes what it sees

void forbid_clone3(int error) {
  std::array<sock_filter, 4> rules{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program{rules.size(), rules.data()};
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
  ASSERT_EQ(syscall(SYS_clone3, nullptr, 0), -1);
  ASSERT_EQ(errno, error);
}

class Spawning : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<LinuxKernel>> kernel = LinuxKernel::create();
    ASSERT_TRUE(kernel.has_value());
    kernel_ = *std::move(kernel);
  }

  // A shell script that writes to kReport.
  static SpawnSpec script(const std::string& text) {
    SpawnSpec spec;
    spec.program = "/bin/sh";
    spec.arguments = {"sh", "-c", "{ " + text + "; } >&8"};
    spec.environment = {"PATH=/usr/bin:/bin"};
    spec.sibling = false;
    return spec;
  }

  // Runs it to its end and returns what it wrote.
  std::string run(SpawnSpec spec, int* exit_code = nullptr) {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    const UniqueFd out(ends[0]);
    UniqueFd in(fcntl(ends[1], F_DUPFD_CLOEXEC, 100));
    close(ends[1]);
    spec.descriptors.push_back({in.get(), kReport});
    const Result<Spawned> spawned = kernel_->spawn(spec);
    EXPECT_TRUE(spawned.has_value()) << (spawned ? "" : spawned.error().message());
    in.reset();
    if (!spawned) {
      return "";
    }
    EXPECT_FALSE(spawned->failed.has_value()) << spawned->failed->message();
    std::string report;
    std::array<char, 4096> buffer{};
    for (;;) {
      pollfd entry{out.get(), POLLIN, 0};
      if (poll(&entry, 1, kPatienceMs) != 1) {
        ADD_FAILURE() << "the program does not end";
        kill(spawned->pid, SIGKILL);
        break;
      }
      const ssize_t count = read(out.get(), buffer.data(), buffer.size());
      if (count <= 0) {
        break;
      }
      report.append(buffer.data(), static_cast<std::size_t>(count));
    }
    pollfd death{spawned->pidfd, POLLIN, 0};
    EXPECT_EQ(poll(&death, 1, kPatienceMs), 1);
    const std::optional<Ended> ended = kernel_->reap(spawned->pid);
    EXPECT_TRUE(ended.has_value());
    if (ended && exit_code != nullptr) {
      *exit_code = ended->status;
    }
    close(spawned->pidfd);
    last_pid_ = spawned->pid;
    return report;
  }

  // It can't become a program; the error says why.
  Error failure(const SpawnSpec& spec) {
    const Result<Spawned> spawned = kernel_->spawn(spec);
    EXPECT_TRUE(spawned.has_value());
    if (!spawned) {
      return spawned.error();
    }
    pollfd death{spawned->pidfd, POLLIN, 0};
    EXPECT_EQ(poll(&death, 1, kPatienceMs), 1);
    EXPECT_TRUE(kernel_->reap(spawned->pid).has_value());
    close(spawned->pidfd);
    EXPECT_TRUE(spawned->failed.has_value());
    return spawned->failed.value_or(Error{});
  }

  std::unique_ptr<LinuxKernel> kernel_;
  Pid last_pid_ = 0;
};

TEST_F(Spawning, GivesArgumentsAndEnvironmentAsTheyAre) {
  SpawnSpec spec = script("printf '<%s>' \"$0\" \"$@\"");
  spec.arguments.insert(spec.arguments.end(), {"zero", "", "a b", "c\nd", "$HOME"});
  EXPECT_EQ(run(spec), "<zero><><a b><c\nd><$HOME>");
  SpawnSpec environment;
  environment.program = "/usr/bin/env";
  environment.arguments = {"anything at all"};
  environment.environment = {"A=1", "B=x y", "A=2", "EMPTY="};
  environment.sibling = false;
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  environment.descriptors = {{ends[1], 1}};
  const Result<Spawned> spawned = kernel_->spawn(environment);
  ASSERT_TRUE(spawned.has_value());
  close(ends[1]);
  std::string text;
  std::array<char, 512> buffer{};
  for (ssize_t count = 0; (count = read(ends[0], buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  close(ends[0]);
  EXPECT_EQ(text, "A=1\nB=x y\nA=2\nEMPTY=\n");
  waitpid(spawned->pid, nullptr, 0);
  close(spawned->pidfd);
}

TEST_F(Spawning, TellsTheProgramItsOwnPid) {
  SpawnSpec spec = script("echo $LISTEN_PID $$");
  spec.pid_variable = "LISTEN_PID=";
  const std::string report = run(spec);
  const std::string pid = std::to_string(last_pid_);
  EXPECT_EQ(report, pid + " " + pid + "\n");
}

TEST_F(Spawning, PutsDescriptorsWhereTheyBelongAndNoOthers) {
  std::array<int, 2> pair{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  const UniqueFd first(fcntl(pair[0], F_DUPFD_CLOEXEC, 120));
  const UniqueFd second(fcntl(pair[1], F_DUPFD_CLOEXEC, 130));
  close(pair[0]);
  close(pair[1]);
  // One that is inherited, and one that is inherited but not for this program.
  const UniqueFd inherited(fcntl(first.get(), F_DUPFD, 40));
  const UniqueFd withheld(fcntl(first.get(), F_DUPFD, 50));
  const UniqueFd above(fcntl(first.get(), F_DUPFD, 220));
  SpawnSpec spec = script("for fd in /proc/self/fd/*; do echo ${fd##*/}; done");
  spec.descriptors = {{first.get(), 3}, {second.get(), 4}, {first.get(), 6}};
  spec.closed = {withheld.get()};
  spec.keep_below = 200;
  std::istringstream report(run(spec));
  std::set<int> numbers;
  for (int number = 0; report >> number;) {
    if (number > 2 && number != 9 && number != 10) {  // the shell's own, for the redirection
      numbers.insert(number);
    }
  }
  numbers.erase(kReport);
  const auto expect = [&](int number) { EXPECT_EQ(numbers.erase(number), 1u) << number; };
  expect(3);
  expect(4);
  expect(6);
  expect(inherited.get());
  EXPECT_FALSE(numbers.contains(withheld.get()));
  EXPECT_FALSE(numbers.contains(first.get())) << "CLOEXEC";
  EXPECT_FALSE(numbers.contains(above.get())) << "from keep_below on nothing is passed";
}

TEST_F(Spawning, WhatItPassesIsTheSameSocket) {
  std::array<int, 2> pair{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  for (int& fd : pair) {  // away from the numbers that the spawned one uses
    const int raised = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    ASSERT_GE(raised, 100);
    ::close(fd);
    fd = raised;
  }
  SpawnSpec spec = script("echo hello >&5");
  spec.descriptors = {{pair[0], 5}};
  run(spec);
  std::array<char, 16> buffer{};
  EXPECT_EQ(read(pair[1], buffer.data(), buffer.size()), 6);
  EXPECT_STREQ(buffer.data(), "hello\n");
  close(pair[0]);
  close(pair[1]);
}

TEST_F(Spawning, StartsWhereItIsTold) {
  std::string pattern = "/tmp/einhorn-spawn-XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  SpawnSpec spec = script("pwd");
  spec.directory = pattern;
  EXPECT_EQ(run(spec), pattern + "\n");
  rmdir(pattern.c_str());
  EXPECT_EQ(failure(spec).message(), "chdir " + pattern + ": No such file or directory");
  spec.directory.clear();
  EXPECT_EQ(run(spec), std::filesystem::current_path().string() + "\n");
}

TEST_F(Spawning, MakesItALeaderOfItsGroupOrNot) {
  SpawnSpec spec = script(
      "read -r pid rest < /proc/$$/stat; echo $pid; "
      "cut -d' ' -f5 /proc/$$/stat");
  std::istringstream own(run(spec));
  int pid = 0;
  int group = 0;
  own >> pid >> group;
  EXPECT_EQ(pid, last_pid_);
  EXPECT_EQ(group, last_pid_);
  spec.own_group = false;
  std::istringstream shared(run(spec));
  shared >> pid >> group;
  EXPECT_EQ(group, getpgrp());
}

TEST_F(Spawning, ClearsMaskAndDispositions) {
  sigset_t everything;
  sigset_t before;
  sigfillset(&everything);
  sigprocmask(SIG_BLOCK, &everything, &before);
  struct sigaction old_pipe {};
  struct sigaction old_usr1 {};
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &old_pipe);
  sigaction(SIGUSR1, &ignore, &old_usr1);
  const std::string report = run(script("exec grep -E '^Sig(Blk|Ign)' /proc/self/status"));
  sigset_t after;
  sigprocmask(SIG_SETMASK, &before, &after);
  sigaction(SIGPIPE, &old_pipe, nullptr);
  sigaction(SIGUSR1, &old_usr1, nullptr);
  EXPECT_EQ(report, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
  EXPECT_EQ(sigismember(&after, SIGTERM), 1) << "the spawner's own mask is as it was";
}

TEST_F(Spawning, LeavesTheSpawnersOwnDispositionsAlone) {
  struct sigaction mine {};
  mine.sa_handler = [](int) {};
  struct sigaction old {};
  sigaction(SIGUSR1, &mine, &old);
  run(script("echo"));
  struct sigaction now {};
  sigaction(SIGUSR1, nullptr, &now);
  EXPECT_EQ(now.sa_handler, mine.sa_handler);
  sigaction(SIGUSR1, &old, nullptr);
}

TEST_F(Spawning, SetsTheNiceLevel) {
  SpawnSpec spec = script("nice");
  spec.nice = getpriority(PRIO_PROCESS, 0) + 3;
  EXPECT_EQ(run(spec), std::to_string(*spec.nice) + "\n");
}

TEST_F(Spawning, SaysAtWhichStageAndWhyItFailed) {
  SpawnSpec spec = script("");
  spec.program = spec.arguments[0] = "/nowhere/x";
  EXPECT_EQ(failure(spec).message(), "exec /nowhere/x: No such file or directory");
  std::string file = "/tmp/einhorn-spawn-XXXXXX";
  UniqueFd(mkstemp(file.data())).reset();
  spec.program = spec.arguments[0] = file;
  EXPECT_EQ(failure(spec).message(), "exec " + file + ": Permission denied");
  chmod(file.c_str(), 0755);
  EXPECT_EQ(failure(spec).code, ENOEXEC) << "an empty file is no program";
  unlink(file.c_str());

  SpawnSpec moved = script("");
  moved.descriptors = {{9999, 4}};
  EXPECT_EQ(failure(moved).message(), "pass descriptors: Bad file descriptor");
  SpawnSpec lonely = script("");
  lonely.connect_to = "/nowhere/socket";
  lonely.connect_as = 5;
  EXPECT_EQ(failure(lonely).message(), "connect /nowhere/socket: No such file or directory");
  lonely.connect_to = std::string(200, 'x');
  const Result<Spawned> refused = kernel_->spawn(lonely);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ENAMETOOLONG);
}

TEST_F(Spawning, AFailureLeavesNothingBehind) {
  const auto open_now = [] {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      count += entry.path().empty() ? 0U : 1U;
    }
    return count;
  };
  SpawnSpec spec = script("");
  spec.program = spec.arguments[0] = "/nowhere/x";
  failure(spec);
  const std::size_t before = open_now();
  for (int i = 0; i < 50; ++i) {
    failure(spec);
    run(script("echo"));
  }
  EXPECT_EQ(open_now(), before);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "somebody was not reaped";
}

TEST_F(Spawning, ConnectsASocketForIt) {
  std::string path = "/tmp/einhorn-spawn-XXXXXX";
  ASSERT_NE(mkdtemp(path.data()), nullptr);
  const std::string folder = path;
  path += "/s";
  const UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener.get(), 5), 0);
  SpawnSpec spec = script("echo over the socket >&5");
  spec.connect_to = path;
  spec.connect_as = 5;
  run(spec);
  const UniqueFd client(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(client);
  std::array<char, 32> buffer{};
  EXPECT_EQ(read(client.get(), buffer.data(), buffer.size()), 16);
  EXPECT_STREQ(buffer.data(), "over the socket\n");
  std::filesystem::remove_all(folder);
}

TEST_F(Spawning, ASiblingIsTheParentsChild) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t spawner = fork();
  if (spawner == 0) {
    // The child spawns; whom it spawns is our child, not its own.
    SpawnSpec spec = script("exit 5");
    spec.arguments[2] = "exit 5";
    spec.sibling = true;
    const Result<Spawned> spawned = kernel_->spawn(spec);
    const pid_t pid = spawned ? spawned->pid : -1;
    const bool not_mine = waitpid(pid, nullptr, WNOHANG) < 0 && errno == ECHILD;
    const std::array<pid_t, 2> report = {pid, not_mine ? 1 : 0};
    _exit(write(ends[1], report.data(), sizeof(report)) == sizeof(report) ? 0 : 1);
  }
  close(ends[1]);
  std::array<pid_t, 2> report{};
  ASSERT_EQ(read(ends[0], report.data(), sizeof(report)), static_cast<ssize_t>(sizeof(report)));
  close(ends[0]);
  EXPECT_EQ(report[1], 1);
  int status = 0;
  EXPECT_EQ(waitpid(report[0], &status, 0), report[0]);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 5);
  EXPECT_EQ(waitpid(spawner, &status, 0), spawner);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// As in a sandbox that does not know it. The filter stays, so it gets a process of its own.
TEST_F(Spawning, GoesWithoutClone3) {
  for (const int error : {ENOSYS, EPERM}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      forbid_clone3(error);
      SpawnNote note;
      SpawnSpec spec = script("echo $0 $PPID");
      spec.note = &note;
      int code = -1;
      const std::string said = run(spec, &code);
      SpawnSpec missing = spec;
      missing.program = "/nowhere/sh";
      missing.descriptors = {};
      const Result<Spawned> failed = kernel_->spawn(missing);
      const bool fine = said == "sh " + std::to_string(getpid()) + "\n" && code == 0 &&
                        note.pid != 0 && failed && failed->failed &&
                        failed->failed->operation == "exec /nowhere/sh";
      _exit(fine && !HasFailure() ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << strerrorname_np(error);
  }
}

TEST_F(Spawning, ADeathSignalComesWithTheParentsDeath) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const UniqueFd in(fcntl(ends[1], F_DUPFD_CLOEXEC, 100));
    SpawnSpec spec = script("");
    spec.arguments[2] =
        "sleep 1000 8>&- & trap \"kill $!; echo told >&8; exit 0\" USR2; echo up >&8; wait";
    spec.parent_death_signal = SIGUSR2;
    spec.descriptors = {{in.get(), kReport}};
    const Result<Spawned> spawned = kernel_->spawn(spec);
    if (!spawned || spawned->failed) {
      _exit(1);
    }
    pause();
    _exit(0);
  }
  close(ends[1]);
  const UniqueFd out(ends[0]);
  std::string report;
  const auto read_line = [&] {
    std::array<char, 64> buffer{};
    pollfd entry{out.get(), POLLIN, 0};
    if (poll(&entry, 1, kPatienceMs) == 1) {
      const ssize_t count = read(out.get(), buffer.data(), buffer.size());
      report.append(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    }
  };
  read_line();
  EXPECT_EQ(report, "up\n");
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  read_line();
  EXPECT_EQ(report, "up\ntold\n");
}

}  // namespace
}  // namespace einhorn::os
