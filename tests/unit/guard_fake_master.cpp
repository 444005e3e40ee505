#include "guard_fake_master.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "base/numbers.h"

// --- no allocation
// --------------------------------------------------------------------------------
namespace {
bool allocation_is_forbidden = false;
[[maybe_unused]] void check_allocation() {
  if (allocation_is_forbidden) {
    constexpr char kText[] = "an allocation after the guard began to run\n";
    static_cast<void>(!::write(STDERR_FILENO, kText, sizeof(kText) - 1));
    ::abort();
  }
}
}  // namespace

#if !defined(__SANITIZE_ADDRESS__)
extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,cert-*,readability-identifier-naming)
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* old, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
void __libc_free(void* memory);
// NOLINTEND(bugprone-reserved-identifier,cert-*,readability-identifier-naming)

void* malloc(std::size_t size) {
  check_allocation();
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  check_allocation();
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  check_allocation();
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  check_allocation();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** into, std::size_t alignment, std::size_t size) {
  check_allocation();
  *into = __libc_memalign(alignment, size);
  return *into == nullptr ? ENOMEM : 0;
}
void free(void* memory) { __libc_free(memory); }
}
#endif

namespace einhorn::guard::testing {
namespace {

constexpr const char* kPuppetName = "einhorn-puppet";

// --- messages
// -------------------------------------------------------------------------------------
struct Packet {
  ssize_t count = -1;
  std::array<char, 8192> text;
  std::array<int, 64> fds;
  std::size_t fd_count = 0;
};

void receive(int socket, Packet* packet) {
  iovec part{packet->text.data(), packet->text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(Packet::fds))> control;
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  packet->fd_count = 0;
  packet->count = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  for (cmsghdr* rights = packet->count < 0 ? nullptr : CMSG_FIRSTHDR(&header); rights != nullptr;
       rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
      packet->fd_count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      std::memcpy(packet->fds.data(), CMSG_DATA(rights), packet->fd_count * sizeof(int));
    }
  }
}

bool send_packet(int socket, std::string_view text, const int* fds, std::size_t fd_count) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(Packet::fds))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd_count > 0) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
  }
  return sendmsg(socket, &header, MSG_NOSIGNAL) >= 0;
}

int connect_to(const char* path) {
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path != nullptr ? path : "", sizeof(address.sun_path) - 1);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    _exit(99);
  }
  return fd;
}

// --- the puppet
// -----------------------------------------------------------------------------------
pid_t make_sibling() {
  return static_cast<pid_t>(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
}

[[noreturn]] void wait_to_be_killed() {
  for (;;) {
    pause();
  }
}

pid_t make_orphan() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    _exit(98);
  }
  if (make_sibling() == 0) {
    const pid_t orphan = fork();
    if (orphan == 0) {
      wait_to_be_killed();
    }
    _exit(write(ends[1], &orphan, sizeof(orphan)) == sizeof(orphan) ? 0 : 1);
  }
  pid_t orphan = -1;
  static_cast<void>(!read(ends[0], &orphan, sizeof(orphan)));
  return orphan;
}

void obey(std::string_view command, int wire) {
  if (command.starts_with("!exit ")) {
    _exit(number_of<int>(command.substr(6)));
  }
  if (command == "!echo") {
    send_packet(wire, "echo", nullptr, 0);
    return;
  }
  const bool sibling = command == "!child";
  const pid_t pid = sibling ? make_sibling() : make_orphan();
  if (pid == 0) {
    wait_to_be_killed();
  }
  send_packet(wire, std::to_string(pid), nullptr, 0);
}

[[noreturn]] void be_a_puppet(int control) {
  if (std::getenv("PUPPET_FAILS") != nullptr) {
    _exit(3);
  }
  fcntl(control, F_SETFD, FD_CLOEXEC);
  const int wire = connect_to(std::getenv("PUPPET_WIRE"));
  Packet packet;
  for (;;) {
    std::array<pollfd, 2> watched{{{control, POLLIN, 0}, {wire, POLLIN, 0}}};
    if (poll(watched.data(), watched.size(), -1) < 0) {
      continue;
    }
    if (watched[0].revents != 0) {
      receive(control, &packet);
      if (packet.count <= 0) {
        _exit(97);
      }
      send_packet(wire, {packet.text.data(), static_cast<std::size_t>(packet.count)},
                  packet.fds.data(), packet.fd_count);
      for (std::size_t i = 0; i < packet.fd_count; ++i) {
        close(packet.fds[i]);
      }
    }
    if (watched[1].revents != 0) {
      receive(wire, &packet);
      if (packet.count <= 0) {
        _exit(96);
      }
      packet.text[static_cast<std::size_t>(packet.count)] = '\0';
      const std::string_view text(packet.text.data(), static_cast<std::size_t>(packet.count));
      if (text.starts_with('!')) {
        obey(text, wire);
      } else {
        send_packet(control, text, packet.fds.data(), packet.fd_count);
      }
      for (std::size_t i = 0; i < packet.fd_count; ++i) {
        close(packet.fds[i]);
      }
    }
  }
}

// Before main(), which belongs to GoogleTest.
__attribute__((constructor)) void become_a_puppet(int argc, char** argv, char** /*envp*/) {
  if (argc >= 3 && std::strcmp(argv[0], kPuppetName) == 0) {
    be_a_puppet(number_of<int>(argv[2]));
  }
}

}  // namespace

void forbid_allocation() { allocation_is_forbidden = true; }

bool comes_true(const std::function<bool()>& what) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds{kPatienceMs};
  while (!what()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    poll(nullptr, 0, 2);
  }
  return true;
}

char process_state(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string stat{std::istreambuf_iterator<char>(file), {}};
  const std::size_t end = stat.rfind(')');
  return end == std::string::npos ? '\0' : stat[end + 2];
}

// --- Puppet
// ---------------------------------------------------------------------------------------
Puppet::Puppet(os::UniqueFd wire) : wire_(std::move(wire)) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  EXPECT_EQ(getsockopt(wire_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size), 0);
  pid_ = peer.pid;
}

Said Puppet::next() {
  pollfd entry{wire_.get(), POLLIN, 0};
  if (poll(&entry, 1, kPatienceMs) != 1) {
    throw std::runtime_error("the guard says nothing to master " + std::to_string(pid_));
  }
  Packet packet;
  receive(wire_.get(), &packet);
  Said said;
  said.text.assign(packet.text.data(),
                   static_cast<std::size_t>(std::max<ssize_t>(packet.count, 0)));
  for (std::size_t i = 0; i < packet.fd_count; ++i) {
    said.fds.emplace_back(packet.fds[i]);
  }
  return said;
}

std::vector<std::pair<std::string, os::UniqueFd>> Puppet::take_over() {
  std::vector<std::pair<std::string, os::UniqueFd>> kept;
  for (;;) {
    Said said = next();
    if (said.text == "X_EINHORN_GO=1") {
      return kept;
    }
    if (!said.text.starts_with("X_EINHORN_FDS=1\n")) {
      ADD_FAILURE() << "not a hand-over: \"" << said.text << '"';
      return kept;
    }
    std::size_t at = said.text.find('\n') + 1;
    for (os::UniqueFd& fd : said.fds) {
      const std::size_t end = said.text.find('\n', at);
      kept.emplace_back(said.text.substr(at, end - at), std::move(fd));
      at = end + 1;
    }
  }
}

bool Puppet::is_silent(int milliseconds) {
  pollfd entry{wire_.get(), POLLIN, 0};
  return poll(&entry, 1, milliseconds) == 0;
}

void Puppet::tell(const std::string& text, int fd) {
  EXPECT_TRUE(send_packet(wire_.get(), text, &fd, fd >= 0 ? 1 : 0));
}

pid_t Puppet::child(const std::string& how) {
  tell(how);
  const std::string answer = next().text;
  const pid_t pid = number_of<pid_t>(answer);
  EXPECT_GT(pid, 1) << answer;
  return pid > 1 ? pid : std::numeric_limits<pid_t>::max();  // nobody's
}

void Puppet::sync() {
  tell("!echo");
  EXPECT_EQ(next().text, "echo");
}

void Puppet::kill() {
  ASSERT_GT(pid_, 1) << "there is no such master";
  EXPECT_EQ(::kill(pid_, SIGKILL), 0);
}

// --- GuardTest
// ------------------------------------------------------------------------------------
void GuardTest::SetUp() {
  // Whoever is left when the guard has gone becomes ours, to be ended and reaped.
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  std::string pattern = "/tmp/einhorn-guard-XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  folder_ = pattern;
  listener_.reset(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path("wire").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener_.get(), 16), 0);
  plan_ = std::make_unique<Plan>();
}

void GuardTest::TearDown() {
  if (guard_ > 0) {
    ::kill(guard_, SIGKILL);
    waitpid(guard_, nullptr, 0);
  }
  // Only processes of this test can be our children.
  const std::string children = "/proc/self/task/" + std::to_string(gettid()) + "/children";
  for (;;) {
    std::ifstream file(children);
    pid_t pid = 0;
    if (!(file >> pid)) {
      break;
    }
    ::kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  std::filesystem::remove_all(folder_);
}

void GuardTest::start() {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  log_.reset(ends[0]);
  const std::string wire = "PUPPET_WIRE=" + path("wire");
  guard_ = fork();
  if (guard_ == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(listener_.release());
    plan_->program = ::open("/proc/self/exe", O_PATH | O_CLOEXEC);
    auto system = std::make_unique<LinuxSystem>(*plan_);
    auto guard = std::make_unique<Guard>(*system);
    std::string extra = "PUPPET=1";
    if (prepare) {
      prepare(*plan_, *guard);
    }
    if (std::getenv("PUPPET_FAILS") != nullptr) {
      extra = "PUPPET_FAILS=1";
    }
    std::string name = kPuppetName;
    std::string option = "--with-state-fd";
    std::string control = std::to_string(plan_->control);
    std::string dashes = "--";
    std::string variable = wire;
    std::array<char*, 5> arguments = {name.data(), option.data(), control.data(), dashes.data(),
                                      nullptr};
    std::array<char*, 3> environment = {variable.data(), extra.data(), nullptr};
    plan_->arguments = arguments.data();
    plan_->environment = environment.data();
    setenv("TZ", "UTC", 1);  // without one, every tzset() reads the file anew
    tzset();                 // as at the beginning of run(): it allocates, once
    forbid_allocation();
    _exit(guard->run());
  }
  ASSERT_GT(guard_, 0);
  close(ends[1]);
}

Puppet GuardTest::master() {
  pollfd entry{listener_.get(), POLLIN, 0};
  if (poll(&entry, 1, kPatienceMs) != 1) {
    throw std::runtime_error("the guard starts no master; it says: " + log());
  }
  return Puppet(os::UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
}

Puppet GuardTest::ready_master() {
  Puppet puppet = master();
  puppet.take_over();
  puppet.ready();
  return puppet;
}

int GuardTest::guard_end() {
  int status = 0;
  if (!comes_true([&] { return waitpid(guard_, &status, WNOHANG) == guard_; })) {
    ADD_FAILURE() << "the guard does not end";
    return -1000;
  }
  guard_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void GuardTest::signal(int number) const {
  ASSERT_GT(guard_, 1);
  EXPECT_EQ(::kill(guard_, number), 0);
}

std::string GuardTest::log() {
  std::array<char, 4096> buffer;
  for (;;) {
    pollfd entry{log_.get(), POLLIN, 0};
    if (poll(&entry, 1, 0) != 1) {
      return said_;
    }
    const ssize_t count = read(log_.get(), buffer.data(), buffer.size());
    if (count <= 0) {
      return said_;
    }
    said_.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

bool GuardTest::log_says(const std::string& text) {
  return comes_true([&] { return log().find(text) != std::string::npos; });
}

}  // namespace einhorn::guard::testing
