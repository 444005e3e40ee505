// What the tests of the listeners share: opening specs, and being somebody on the other side.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "os/linux/listeners_internal.h"
#include "os/listeners.h"

namespace einhorn::os::listeners_test {

inline constexpr int kBacklog = 100;
inline constexpr int kDeadlineMs = 5000;

using Listeners = std::vector<Listener>;
using Opened = Result<Listeners>;

inline Opened try_open(const std::string& text, const InheritedSockets& inherited = {}) {
  const Result<BindSpec> spec = parse_bind_spec(text);
  if (!spec) {
    ADD_FAILURE() << spec.error().message();
    return spec.error();
  }
  return open_listeners(*spec, kBacklog, inherited);
}

inline Listeners open_all(const std::string& text, const InheritedSockets& inherited = {}) {
  Opened opened = try_open(text, inherited);
  EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().message());
  return opened ? std::move(*opened) : Listeners{};
}

// The only listener of a spec. Where there is none the test has failed already.
inline Listener open_one(const std::string& text, const InheritedSockets& inherited = {}) {
  Listeners all = open_all(text, inherited);
  EXPECT_EQ(all.size(), 1u) << text;
  return all.empty() ? Listener{} : std::move(all.front());
}

inline void expect_refused(const Opened& opened, const std::string& message) {
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().message(), message);
}

inline listeners::Address ipv4(const char* text, std::uint16_t port) {
  listeners::Address address;
  auto& in = reinterpret_cast<sockaddr_in&>(address.storage);
  in.sin_family = AF_INET;
  EXPECT_EQ(inet_pton(AF_INET, text, &in.sin_addr), 1);
  address.length = sizeof in;
  listeners::set_port(address, port);
  return address;
}

inline listeners::Address ipv6(const char* text, std::uint16_t port) {
  listeners::Address address;
  auto& in = reinterpret_cast<sockaddr_in6&>(address.storage);
  in.sin6_family = AF_INET6;
  EXPECT_EQ(inet_pton(AF_INET6, text, &in.sin6_addr), 1);
  address.length = sizeof in;
  listeners::set_port(address, port);
  return address;
}

inline listeners::Address unix_path(const std::string& path) {
  listeners::Address address;
  auto& un = reinterpret_cast<sockaddr_un&>(address.storage);
  un.sun_family = AF_UNIX;
  std::memcpy(un.sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

// A connected client, or none with errno set.
inline UniqueFd connect_to(const listeners::Address& address, int flags = 0) {
  UniqueFd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (fd && connect(fd.get(), address.get(), address.length) != 0) {
    const int error = errno;
    fd.reset();
    errno = error;
  }
  return fd;
}

inline bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return poll(&entry, 1, kDeadlineMs) == 1;
}

// Connects, and accepts it on the listener: the accepted end.
inline UniqueFd connect_and_accept(const Listener& listener, const listeners::Address& address) {
  const UniqueFd client = connect_to(address);
  EXPECT_TRUE(client) << strerror(errno);
  if (!client || !readable(listener.fd.get())) {
    return UniqueFd{};
  }
  return UniqueFd(accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

inline int option(const Listener& listener, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  EXPECT_EQ(getsockopt(listener.fd.get(), level, name, &value, &length), 0) << strerror(errno);
  return value;
}

inline bool is_cloexec(int fd) { return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }
inline bool is_nonblocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

inline int backlog_of(const Listener& listener) {
  tcp_info info{};
  socklen_t length = sizeof info;
  EXPECT_EQ(getsockopt(listener.fd.get(), IPPROTO_TCP, TCP_INFO, &info, &length), 0);
  return static_cast<int>(info.tcpi_sacked);  // of a listening socket: the most it queues
}

inline std::size_t open_descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    count += entry.path().empty() ? 0 : 1;
  }
  return count;
}

inline bool machine_has_ipv6() {
  const UniqueFd fd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const listeners::Address loopback = ipv6("::1", 0);
  return fd && bind(fd.get(), loopback.get(), loopback.length) == 0;
}

#define NEEDS_IPV6()                                 \
  if (!machine_has_ipv6()) {                         \
    GTEST_SKIP() << "this machine has no IPv6 here"; \
  }

inline std::string with_port(const std::string& host, std::uint16_t port) {
  return host + ":" + std::to_string(port);
}

// Unix sockets in a folder that is removed at the end.
class UnixSocketFolder : public testing::Test {
 protected:
  void SetUp() override {
    saved_umask_ = umask(022);
    std::string pattern = "/tmp/einhorn-listeners-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override {
    umask(saved_umask_);
    std::filesystem::remove_all(folder_);
  }

  [[nodiscard]] std::string path(const std::string& name = "s") const {
    return folder_ + "/" + name;
  }
  [[nodiscard]] std::string text(const std::string& options = "") const {
    return "unix:" + path() + options;
  }

  // A bound socket of the test's own, that listens or not.
  [[nodiscard]] UniqueFd foreign_socket(int type, int backlog) const {
    UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    const listeners::Address address = unix_path(path());
    EXPECT_EQ(bind(fd.get(), address.get(), address.length), 0) << strerror(errno);
    if (backlog >= 0) {
      EXPECT_EQ(listen(fd.get(), backlog), 0);
    }
    return fd;
  }

  static struct stat status_of(const std::string& file) {
    struct stat status {};
    EXPECT_EQ(lstat(file.c_str(), &status), 0) << file << ": " << strerror(errno);
    return status;
  }
  static unsigned mode_of(const std::string& file) { return status_of(file).st_mode & 07777u; }

 private:
  std::string folder_;
  mode_t saved_umask_ = 0;
};

}  // namespace einhorn::os::listeners_test
