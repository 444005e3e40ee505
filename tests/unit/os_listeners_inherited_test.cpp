// Sockets that somebody else opened and handed in.
#include <string>
#include <vector>

#include "os_listeners_support.h"

namespace einhorn::os::listeners_test {
namespace {

// What a service manager would have opened.
UniqueFd foreign_inet(int type, bool listening) {
  UniqueFd fd(socket(AF_INET, type, 0));
  const listeners::Address address = ipv4("127.0.0.1", 0);
  EXPECT_EQ(bind(fd.get(), address.get(), address.length), 0);
  if (listening) {
    EXPECT_EQ(listen(fd.get(), 3), 0);
  }
  return fd;
}

std::string fd_text(const UniqueFd& fd, const std::string& options = "") {
  return "fd:" + std::to_string(fd.get()) + options;
}

TEST(InheritedListenerTest, IsTakenByNumber) {
  const UniqueFd original = foreign_inet(SOCK_STREAM, true);
  ASSERT_FALSE(is_cloexec(original.get()));
  const Listener listener = open_one(fd_text(original));
  EXPECT_NE(listener.fd.get(), original.get());
  EXPECT_TRUE(is_cloexec(listener.fd.get()));
  EXPECT_TRUE(is_cloexec(original.get()));
  EXPECT_NE(listener.port, 0);
  EXPECT_EQ(listener.address, with_port("127.0.0.1", listener.port));
  EXPECT_EQ(listener.inode, 0u);
  EXPECT_EQ(listener.spec.name, "");
  EXPECT_EQ(backlog_of(listener), 3) << "the backlog was not ours to change";
  EXPECT_TRUE(connect_and_accept(listener, ipv4("127.0.0.1", listener.port)));
}

TEST(InheritedListenerTest, EveryOneOfANameIsTaken) {
  const UniqueFd a = foreign_inet(SOCK_STREAM, true);
  const UniqueFd b = foreign_inet(SOCK_STREAM, true);
  const UniqueFd c = foreign_inet(SOCK_DGRAM, false);
  const InheritedSockets inherited{{a.get(), b.get(), c.get()}, {"web", "api", "web"}};
  const Listeners web = open_all("fd:web,name=front", inherited);
  ASSERT_EQ(web.size(), 2u);
  EXPECT_TRUE(web[0].address.starts_with("127.0.0.1:"));
  EXPECT_TRUE(web[1].address.starts_with("udp:127.0.0.1:"));
  EXPECT_EQ(web[1].spec.protocol, BindSpec::Protocol::kUdp);
  EXPECT_EQ(web[0].spec.name, "front");
  EXPECT_EQ(open_one("fd:api", inherited).spec.name, "api");
  EXPECT_EQ(open_one(fd_text(b), inherited).spec.name, "api");
}

TEST(InheritedListenerTest, UnknownNameIsRefusedWithThoseThereAre) {
  const UniqueFd a = foreign_inet(SOCK_STREAM, true);
  const UniqueFd b = foreign_inet(SOCK_STREAM, true);
  expect_refused(try_open("fd:web", InheritedSockets{{a.get(), b.get()}, {"api", "admin"}}),
                 "-b fd:web: no socket of that name was handed in; LISTEN_FDNAMES has api, admin");
  expect_refused(try_open("fd:web", InheritedSockets{{a.get()}, {""}}),
                 "-b fd:web: no socket of that name was handed in; LISTEN_FDNAMES has no names");
  expect_refused(try_open("fd:web"),
                 "-b fd:web: no sockets were handed in (LISTEN_FDS, with our pid in LISTEN_PID)");
}

TEST(InheritedListenerTest, OptionsAreApplied) {
  const UniqueFd original = foreign_inet(SOCK_STREAM, true);
  const Listener listener = open_one(fd_text(original, ",n,backlog=9,defer,fastopen=5,nodelay"));
  EXPECT_TRUE(is_nonblocking(listener.fd.get()));
  EXPECT_EQ(backlog_of(listener), 9);
  EXPECT_GE(option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT), 1);
  EXPECT_EQ(option(listener, IPPROTO_TCP, TCP_FASTOPEN), 5);
  EXPECT_EQ(option(listener, IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_FALSE(is_nonblocking(open_one(fd_text(original)).fd.get()));
}

TEST(InheritedListenerTest, BoundSocketIsMadeToListen) {
  const UniqueFd original = foreign_inet(SOCK_STREAM, false);
  const Listener listener = open_one(fd_text(original));
  EXPECT_EQ(option(listener, SOL_SOCKET, SO_ACCEPTCONN), 1);
  EXPECT_EQ(backlog_of(listener), kBacklog);
}

TEST(InheritedListenerTest, DatagramSocket) {
  const UniqueFd original = foreign_inet(SOCK_DGRAM, false);
  const Listener listener = open_one(fd_text(original));
  EXPECT_EQ(listener.address, with_port("udp:127.0.0.1", listener.port));
  expect_refused(
      try_open(fd_text(original, ",backlog=5")),
      "-b " + fd_text(original, ",backlog=5") + ": backlog makes no sense for a datagram socket");
  expect_refused(try_open(fd_text(original, ",defer")),
                 "-b " + fd_text(original, ",defer") +
                     ": defer, fastopen and nodelay are for TCP, and this is no TCP socket");
}

class InheritedUnixListenerTest : public UnixSocketFolder {};

TEST_F(InheritedUnixListenerTest, FileIsNotOursToRemove) {
  const UniqueFd original = foreign_socket(SOCK_STREAM, 5);
  const Listener listener = open_one(fd_text(original));
  EXPECT_EQ(listener.address, text());
  remove_socket_file(listener);
  EXPECT_TRUE(std::filesystem::exists(path()));
  EXPECT_FALSE(try_open(fd_text(original, ",nodelay")).has_value());
}

TEST(InheritedListenerTest, WhatIsNoListeningSocketIsRefused) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  UniqueFd read_end(fds[0]);
  const UniqueFd write_end(fds[1]);
  const std::string piped = fd_text(read_end);
  expect_refused(try_open(piped), "-b " + piped + ": descriptor " + piped.substr(3) +
                                      ": Socket operation on non-socket");
  read_end.reset();
  expect_refused(try_open(piped),
                 "-b " + piped + ": descriptor " + piped.substr(3) + ": Bad file descriptor");
  expect_refused(try_open("fd:2147483647"),
                 "-b fd:2147483647: descriptor 2147483647: Bad file descriptor");

  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const UniqueFd left(fds[0]);
  const UniqueFd right(fds[1]);
  const std::size_t before = open_descriptors();
  expect_refused(try_open(fd_text(left)),
                 "-b " + fd_text(left) + ": it is a connection, not a listening socket");
  EXPECT_EQ(open_descriptors(), before);

  const UniqueFd netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(netlink);
  expect_refused(try_open(fd_text(netlink)),
                 "-b " + fd_text(netlink) + ": it is no TCP, UDP or unix socket");
}

struct Environment {
  const char* pid;
  const char* fds;
  const char* names;
};
// For lookups, which are plain functions.
Environment given_environment;

Result<InheritedSockets> read_from(const Environment& given) {
  given_environment = given;
  const auto lookup = [](const char* name) -> const char* {
    const std::string key = name;
    if (key == "LISTEN_PID") {
      return given_environment.pid;
    }
    if (key == "LISTEN_FDS") {
      return given_environment.fds;
    }
    return key == "LISTEN_FDNAMES" ? given_environment.names : nullptr;
  };
  return read_inherited_sockets(lookup, 42);
}

TEST(InheritedSocketsTest, ReadFromTheEnvironment) {
  struct Case {
    Environment given;
    std::vector<int> fds;
    std::vector<std::string> names;
  };
  const std::vector<Case> cases = {
      {{"42", "2", "web:api"}, {3, 4}, {"web", "api"}},
      {{"42", "2", nullptr}, {3, 4}, {"", ""}},
      {{"42", "3", "web"}, {3, 4, 5}, {"web", "", ""}},
      {{"42", "3", "web::api"}, {3, 4, 5}, {"web", "", "api"}},
      {{"42", "1", "web:api"}, {3}, {"web"}},
      {{"42", "0", ""}, {}, {}},
      {{"43", "2", "web:api"}, {}, {}},
      {{"43", "garbage", nullptr}, {}, {}},
      {{"x", "2", nullptr}, {}, {}},
      {{"", "2", nullptr}, {}, {}},
      {{nullptr, "2", nullptr}, {}, {}},
      {{"42", nullptr, "web"}, {}, {}},
      {{nullptr, nullptr, nullptr}, {}, {}},
  };
  for (const Case& c : cases) {
    const auto read = read_from(c.given);
    ASSERT_TRUE(read.has_value()) << read.error().message();
    EXPECT_EQ(read->fds, c.fds);
    EXPECT_EQ(read->names, c.names);
  }
}

TEST(InheritedSocketsTest, MalformedCountsAreRefused) {
  for (const char* count : {"", "x", "-1", "2x", " 2", "+2", "99999999999999999999"}) {
    const auto read = read_from({"42", count, nullptr});
    ASSERT_FALSE(read.has_value()) << count;
    EXPECT_EQ(read.error().message(),
              std::string("LISTEN_FDS=") + count + ": must be a number of descriptors");
  }
  const auto read = read_from({"42", "257", nullptr});
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().message(), "LISTEN_FDS=257: more than 256");
}

}  // namespace
}  // namespace einhorn::os::listeners_test
