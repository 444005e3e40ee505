// The files a pool leaves behind: lock, pid file, sockets. They may lie where everybody can write.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "os/state_files.h"

namespace einhorn::os {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class StateFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    saved_umask_ = umask(0);  // nothing may depend on a careful one
    std::string pattern = "/tmp/einhorn-state-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override {
    umask(saved_umask_);
    std::filesystem::remove_all(folder_);
  }
  [[nodiscard]] std::string path(const std::string& name = "x") const {
    return folder_ + "/" + name;
  }
  [[nodiscard]] std::string content(const std::string& name = "x") const {
    std::ifstream file(path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void make(const std::string& name, const std::string& text) const {
    std::ofstream(path(name)) << text;
  }
  static struct stat status_of(const std::string& file) {
    struct stat status {};
    EXPECT_EQ(lstat(file.c_str(), &status), 0) << file;
    return status;
  }
  static unsigned mode_of(const std::string& file) { return status_of(file).st_mode & 07777U; }

 private:
  std::string folder_;
  mode_t saved_umask_ = 0;
};

// --- the lock -----------------------------------------------------------------------------------
TEST_F(StateFiles, ALockIsHeldByOneAndLeftBehind) {
  Result<UniqueFd> first = lock_file(path());
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(mode_of(path()), 0600u);
  EXPECT_NE(fcntl(first->get(), F_GETFD) & FD_CLOEXEC, 0);
  const Result<UniqueFd> second = lock_file(path());
  ASSERT_FALSE(second.has_value());
  EXPECT_THAT(second.error().message(),
              HasSubstr("File lock already acquired by another Einhorn process."));
  first->reset();
  EXPECT_TRUE(std::filesystem::exists(path()));
  EXPECT_TRUE(lock_file(path()).has_value());
}

TEST_F(StateFiles, ALockIsNotTakenThroughALinkNorOnSomethingElse) {
  make("victim", "precious");
  std::filesystem::create_symlink(path("victim"), path("link"));
  std::filesystem::create_hard_link(path("victim"), path("hard"));
  std::filesystem::create_directory(path("folder"));
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_THAT(lock_file(path("link")).error().message(), HasSubstr("it is a symbolic link"));
  EXPECT_THAT(lock_file(path("hard")).error().message(), HasSubstr("hard links"));
  EXPECT_THAT(lock_file(path("fifo")).error().message(), HasSubstr("no regular file"));
  EXPECT_FALSE(lock_file(path("folder")).has_value());
  EXPECT_FALSE(lock_file(path("no/folder/x")).has_value());
  EXPECT_EQ(content("victim"), "precious");
}

// --- the pid file -------------------------------------------------------------------------------
TEST_F(StateFiles, APidFileHoldsJustThePid) {
  ASSERT_TRUE(write_pid_file(path(), 1234567).has_value());
  EXPECT_EQ(content(), "1234567");
  EXPECT_EQ(mode_of(path()), 0644u);
  ASSERT_TRUE(write_pid_file(path(), 42).has_value());
  EXPECT_EQ(content(), "42") << "nothing of the old one is left";
}

TEST_F(StateFiles, APidFileThatIsALinkIsRefusedAndNotFollowed) {
  make("victim", "precious");
  std::filesystem::create_symlink(path("victim"), path());
  const Status refused = write_pid_file(path(), 1);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().message(),
            "open " + path() + ": it is a symbolic link; remove it or name another path with -e");
  EXPECT_EQ(content("victim"), "precious");
  std::filesystem::create_symlink(path("nothing"), path("dangling"));
  EXPECT_FALSE(write_pid_file(path("dangling"), 1).has_value());
  EXPECT_FALSE(std::filesystem::exists(path("nothing")));
}

TEST_F(StateFiles, APidFileOfSomebodyElseIsRefusedAndNotEmptied) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "only root can give a file away";
  }
  make("x", "precious");
  ASSERT_EQ(chown(path().c_str(), 12345, 12345), 0);
  const Status refused = write_pid_file(path(), 1);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(
      refused.error().message(),
      "open " + path() + ": it belongs to user 12345; remove it or name another path with -e");
  EXPECT_EQ(content(), "precious");
}

TEST_F(StateFiles, APidFileWithAnotherNameIsRefused) {
  make("victim", "precious");
  std::filesystem::create_hard_link(path("victim"), path());
  EXPECT_FALSE(write_pid_file(path(), 1).has_value());
  EXPECT_EQ(content("victim"), "precious");
}

// --- the sockets --------------------------------------------------------------------------------
TEST_F(StateFiles, TheCommandSocketHasItsModeWhateverTheUmask) {
  for (const std::uint32_t mode : {0600U, 0660U, 0666U}) {
    for (const mode_t mask : {0U, 022U, 077U}) {
      umask(mask);
      const Result<SocketFile> socket = open_command_socket(path(), mode, "");
      ASSERT_TRUE(socket.has_value()) << socket.error().message();
      EXPECT_EQ(mode_of(path()), mode) << "umask " << mask;
      EXPECT_EQ(umask(mask), mask) << "the umask is as it was";
      const struct stat status = status_of(path());
      EXPECT_EQ(socket->device, status.st_dev);
      EXPECT_EQ(socket->inode, status.st_ino);
      EXPECT_NE(fcntl(socket->fd.get(), F_GETFL) & O_NONBLOCK, 0);
    }
  }
}

TEST_F(StateFiles, TheCommandSocketIsAlive) {
  EXPECT_FALSE(*connect_if_alive(path())) << "there is nothing yet";
  Result<SocketFile> socket = open_command_socket(path(), 0600, "");
  ASSERT_TRUE(socket.has_value());
  const Result<UniqueFd> client = connect_if_alive(path());
  ASSERT_TRUE(client.has_value());
  EXPECT_TRUE(*client);
  socket->fd.reset();
  const Result<UniqueFd> dead = connect_if_alive(path());
  ASSERT_TRUE(dead.has_value());
  EXPECT_FALSE(*dead);
  EXPECT_TRUE(open_command_socket(path(), 0600, "").has_value()) << "a dead one is replaced";
}

TEST_F(StateFiles, WhatIsNoSocketIsNeverReplaced) {
  make("x", "precious");
  for (const std::string& message : {open_command_socket(path(), 0600, "").error().message(),
                                     connect_if_alive(path()).error().message()}) {
    EXPECT_THAT(message,
                HasSubstr("Non-socket file present at Einhorn command socket path " + path()));
  }
  EXPECT_EQ(content(), "precious");
  std::filesystem::create_symlink(path(), path("link"));
  EXPECT_FALSE(open_command_socket(path("link"), 0600, "").has_value());
  EXPECT_TRUE(std::filesystem::is_symlink(path("link")));
}

TEST_F(StateFiles, ADeadSocketOfSomebodyElseIsLeftAlone) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "only root can give a file away";
  }
  { ASSERT_TRUE(open_command_socket(path(), 0600, "").has_value()); }
  ASSERT_EQ(lchown(path().c_str(), 12345, 12345), 0);
  const Result<SocketFile> refused = open_command_socket(path(), 0600, "");
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("belongs to user 12345"));
  EXPECT_TRUE(std::filesystem::exists(path()));
}

TEST_F(StateFiles, AGroupThatIsNotThereIsAnErrorAndLeavesNoFile) {
  const Result<SocketFile> refused = open_command_socket(path(), 0660, "no-such-group-at-all");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().message(), "--socket-group no-such-group-at-all: no such group");
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(StateFiles, ASocketPathThatIsTooLongIsSaid) {
  const std::string longest = path(std::string(107 - path("").size(), 'n'));
  EXPECT_TRUE(open_command_socket(longest, 0600, "").has_value());
  const Result<SocketFile> refused = open_command_socket(longest + "n", 0600, "");
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("it must have 1 to 107 bytes, not 108"));
}

TEST_F(StateFiles, TheNotifySocketKnowsItsSenders) {
  const Result<SocketFile> socket = open_notify_socket(path(), 0600, "");
  ASSERT_TRUE(socket.has_value());
  EXPECT_EQ(mode_of(path()), 0600u);
  int on = 0;
  socklen_t size = sizeof(on);
  ASSERT_EQ(getsockopt(socket->fd.get(), SOL_SOCKET, SO_PASSCRED, &on, &size), 0);
  EXPECT_EQ(on, 1);
}

// --- the process --------------------------------------------------------------------------------
TEST_F(StateFiles, InheritedDescriptorsAreThoseWithoutCloexec) {
  const UniqueFd kept(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd passed(::open("/dev/null", O_RDONLY));
  EXPECT_THAT(inherited_descriptors(), Contains(passed.get()));
  EXPECT_THAT(inherited_descriptors(), Not(Contains(kept.get())));
  EXPECT_THAT(inherited_descriptors(), Not(Contains(1)));
}

}  // namespace
}  // namespace einhorn::os
