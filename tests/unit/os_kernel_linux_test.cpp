// The real kernel under the contract, and what only a real one has: files, links, permissions.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "os/linux/linux_kernel.h"
#include "os_kernel_contract.h"

namespace einhorn::os::contract {
namespace {

class LinuxWorld final : public World {
 public:
  LinuxWorld() {
    Result<std::unique_ptr<LinuxKernel>> kernel = LinuxKernel::create();
    EXPECT_TRUE(kernel.has_value());
    kernel_ = *std::move(kernel);
  }
  Kernel& kernel() override { return *kernel_; }
  std::pair<int, int> stream_pair() override { return pair(SOCK_STREAM); }
  std::pair<int, int> packet_pair() override { return pair(SOCK_SEQPACKET); }
  std::pair<int, int> pipe() override {
    std::array<int, 2> fds{};
    EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
    return {fds[0], fds[1]};
  }
  int listener() override {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un any{};  // bound without a name: the kernel chooses an abstract one
    any.sun_family = AF_UNIX;
    EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof(sa_family_t)), 0);
    EXPECT_EQ(::listen(fd, 10), 0);
    return fd;
  }
  int connect(int listener) override {
    sockaddr_un name{};
    socklen_t length = sizeof(name);
    EXPECT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&name), &length), 0);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&name), length), 0);
    return fd;
  }
  SpawnSpec exits_with(int code) override { return shell("exit " + std::to_string(code)); }
  SpawnSpec waits_for_ever() override { return shell("exec sleep 1000"); }
  SpawnSpec does_not_exist() override {
    SpawnSpec spec = shell("");
    spec.program = spec.arguments[0] = "/nowhere/at/all";
    return spec;
  }

 private:
  static SpawnSpec shell(const std::string& script) {
    SpawnSpec spec;
    spec.program = "/bin/sh";
    spec.arguments = {"sh", "-c", script};
    spec.environment = {"PATH=/usr/bin:/bin"};
    return spec;
  }
  static std::pair<int, int> pair(int type) {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()), 0);
    return {fds[0], fds[1]};
  }

  std::unique_ptr<LinuxKernel> kernel_;
};

std::unique_ptr<World> make_linux_world() { return std::make_unique<LinuxWorld>(); }

INSTANTIATE_TEST_SUITE_P(Linux, KernelContract, ::testing::Values(&make_linux_world));

// --- files --------------------------------------------------------------------------------------
class LinuxFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/einhorn-kernel-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  Kernel& kernel() { return world_.kernel(); }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void make(const std::string& name, const std::string& content, mode_t mode = 0644) const {
    std::ofstream(path(name)) << content;
    EXPECT_EQ(chmod(path(name).c_str(), mode), 0);
  }
  static struct stat status(const std::string& file) {
    struct stat status {};
    EXPECT_EQ(lstat(file.c_str(), &status), 0);
    return status;
  }
  [[nodiscard]] std::string content(const std::string& name) const {
    std::ifstream file(path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  LinuxWorld world_;
  std::string folder_;
};

TEST_F(LinuxFiles, AFileIsRemovedOnlyIfItIsThatOne) {
  make("mine", "a");
  const struct stat mine = status(path("mine"));
  kernel().remove_file(path("mine"), mine.st_dev, mine.st_ino + 1);
  EXPECT_TRUE(std::filesystem::exists(path("mine")));
  kernel().remove_file(path("mine"), mine.st_dev + 1, mine.st_ino);
  EXPECT_TRUE(std::filesystem::exists(path("mine")));
  // A link to it is another file, though it leads to this one.
  std::filesystem::create_symlink(path("mine"), path("link"));
  kernel().remove_file(path("link"), mine.st_dev, mine.st_ino);
  EXPECT_TRUE(std::filesystem::is_symlink(path("link")));
  kernel().remove_file(path("mine"), mine.st_dev, mine.st_ino);
  EXPECT_FALSE(std::filesystem::exists(path("mine")));
  kernel().remove_file(path("mine"), mine.st_dev, mine.st_ino);  // gone already: nothing
}

TEST_F(LinuxFiles, ASocketIsMadeAgainOnlyWhereNothingIs) {
  make("taken", "a");
  const auto taken = kernel().remake_socket(path("taken"), true, 0600, "");
  ASSERT_TRUE(taken.has_value());
  EXPECT_FALSE(taken->has_value());
  EXPECT_EQ(content("taken"), "a");
  std::filesystem::create_symlink(path("nowhere"), path("dangling"));
  const auto dangling = kernel().remake_socket(path("dangling"), true, 0600, "");
  EXPECT_TRUE(dangling.has_value() && !dangling->has_value());
  for (const bool listening : {true, false}) {
    const std::string name = listening ? "stream" : "datagrams";
    const auto made = kernel().remake_socket(path(name), listening, 0640, "");
    ASSERT_TRUE(made.has_value() && made->has_value());
    const os::SocketMade& socket = **made;
    const struct stat file = status(path(name));
    EXPECT_TRUE(S_ISSOCK(file.st_mode));
    EXPECT_EQ(file.st_mode & 07777u, 0640u);
    EXPECT_EQ(file.st_ino, socket.inode);
    EXPECT_EQ(file.st_dev, socket.device);
    EXPECT_NE(fcntl(socket.fd, F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_NE(fcntl(socket.fd, F_GETFL) & O_NONBLOCK, 0);
    kernel().close(socket.fd);
  }
  EXPECT_FALSE(kernel().remake_socket(path("no/folder"), true, 0600, "").has_value());
}

TEST_F(LinuxFiles, LogsAreAppendedToAndPrivate) {
  const mode_t before = umask(0);
  Result<int> log = kernel().open_log(path("log"));
  umask(before);
  ASSERT_TRUE(log.has_value());
  EXPECT_EQ(status(path("log")).st_mode & 07777u, 0640u);
  EXPECT_NE(fcntl(*log, F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_EQ(kernel().write_line(*log, "one\n").bytes, 4u);
  kernel().close(*log);
  log = kernel().open_log(path("log"));
  EXPECT_EQ(kernel().write_line(*log, "two\n").bytes, 4u);
  kernel().close(*log);
  EXPECT_EQ(content("log"), "one\ntwo\n");
  const Result<int> wrong = kernel().open_log(path("no/such/folder"));
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().message(),
            "open " + path("no/such/folder") + ": No such file or directory");
}

TEST_F(LinuxFiles, AFullDiskDropsTheLine) {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  if (full < 0) {
    GTEST_SKIP() << "there is no /dev/full here";
  }
  EXPECT_EQ(kernel().write_line(full, "x\n").kind, Kind::kClosed);
  kernel().close(full);
  EXPECT_NE(kernel().write_line(full, "x\n").kind, Kind::kDone) << "a closed descriptor";
}

TEST_F(LinuxFiles, ProgramsAreFoundAsAShellFindsThem) {
  make("tool", "#!/bin/sh\n", 0755);
  make("plain", "text", 0644);
  std::filesystem::create_directory(path("folder"));
  std::filesystem::create_directory(path("other"));
  make("other/tool", "#!/bin/sh\n", 0755);
  const std::string both = path("other") + ":" + path("");
  EXPECT_EQ(*kernel().find_program("tool", both, "/"), path("other") + "/tool");
  EXPECT_EQ(*kernel().find_program("tool", path("nowhere") + ":" + path("."), "/"), path("./tool"));
  EXPECT_EQ(*kernel().find_program(path("tool"), "", "/"), path("tool"));
  // Relative ones are seen from the directory that they will be started in.
  EXPECT_EQ(*kernel().find_program("./tool", "/bin", path("other")), "./tool");
  EXPECT_EQ(*kernel().find_program("tool", ":/bin", path("other")), "./tool")
      << "an empty part of PATH is the directory itself";
  EXPECT_FALSE(kernel().find_program("plain", path(""), "/").has_value()) << "not executable";
  EXPECT_FALSE(kernel().find_program("folder", path(""), "/").has_value());
  const Result<std::string> none = kernel().find_program("no-such-tool", "/bin", "/");
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().message(), "Could not find no-such-tool in PATH");
  const Result<std::string> no_file = kernel().find_program("./no-such", "/bin", path(""));
  ASSERT_FALSE(no_file.has_value());
  EXPECT_EQ(no_file.error().message(),
            "Could not find ./no-such: there is no " + path("") + "/no-such");
  EXPECT_EQ(kernel().find_program("/no/such", "/bin", path("")).error().message(),
            "Could not find /no/such: there is no /no/such");
}

TEST_F(LinuxFiles, DirectoriesAreResolved) {
  std::filesystem::create_directory(path("a"));
  std::filesystem::create_symlink(path("a"), path("b"));
  make("file", "");
  EXPECT_EQ(*kernel().resolve_directory(path("b")), std::filesystem::canonical(path("a")));
  EXPECT_EQ(kernel().resolve_directory(path("c")).error().message(),
            "directory " + path("c") + ": No such file or directory");
  EXPECT_EQ(kernel().resolve_directory(path("file")).error().message(),
            "directory " + path("file") + ": Not a directory");
  EXPECT_EQ(*kernel().current_directory(), std::filesystem::current_path());
}

TEST_F(LinuxFiles, ReceivedAndAcceptedDescriptorsAreNotInherited) {
  LinuxWorld world;
  const auto [left, right] = world.packet_pair();
  const std::array<int, 1> fds = {left};
  ASSERT_EQ(kernel().send(left, "x", fds).kind, Kind::kDone);
  const Message message = kernel().receive(right);
  ASSERT_EQ(message.fds.size(), 1u);
  EXPECT_NE(fcntl(message.fds[0], F_GETFD) & FD_CLOEXEC, 0);
  const Result<int> raised = kernel().raise(message.fds[0], 40);
  EXPECT_NE(fcntl(*raised, F_GETFD) & FD_CLOEXEC, 0);
  kernel().close(*raised);
  kernel().close(left);
  kernel().close(right);
}

TEST_F(LinuxFiles, SendersAreVouchedForByTheKernel) {
  LinuxWorld world;
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()), 0);
  const int on = 1;
  ASSERT_EQ(setsockopt(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
  ASSERT_EQ(kernel().send(fds[0], "", {}).kind, Kind::kDone);
  const Message empty = kernel().receive(fds[1]);
  EXPECT_EQ(empty.kind, Kind::kDone) << "an empty datagram is a message, not the end";
  EXPECT_EQ(empty.text, "");
  EXPECT_EQ(empty.sender.pid, getpid());
  EXPECT_EQ(empty.sender.uid, geteuid());
  kernel().close(fds[0]);
  kernel().close(fds[1]);
}

TEST_F(LinuxFiles, AMessageThatIsTooLongIsNotTakenForAWhole) {
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()), 0);
  const std::string huge(100'000, 'h');
  ASSERT_EQ(kernel().send(fds[0], huge, {}).bytes, huge.size());
  EXPECT_EQ(kernel().receive(fds[1]).text, "");
  kernel().close(fds[0]);
  kernel().close(fds[1]);
}

}  // namespace
}  // namespace einhorn::os::contract
