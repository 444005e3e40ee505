// Real sockets: on loopback, on ports the kernel chooses, on paths in a folder of the test.
#include <fstream>
#include <map>

#include "os/listeners.h"
#include "os_listeners_support.h"

namespace einhorn::os::listeners_test {
namespace {

TEST(TcpListenerTest, ChosenPortIsSaid) {
  const Listener listener = open_one("127.0.0.1:0");
  EXPECT_NE(listener.port, 0);
  EXPECT_EQ(listener.address, with_port("127.0.0.1", listener.port));
  EXPECT_EQ(listener.spec.text, "127.0.0.1:0");
  EXPECT_EQ(listener.inode, 0u);
  EXPECT_TRUE(connect_and_accept(listener, ipv4("127.0.0.1", listener.port)));
}

TEST(TcpListenerTest, CloexecAndBlockingByDefault) {
  const Listener listener = open_one("127.0.0.1:0");
  EXPECT_TRUE(is_cloexec(listener.fd.get()));
  EXPECT_FALSE(is_nonblocking(listener.fd.get()));
  EXPECT_EQ(option(listener, SOL_SOCKET, SO_REUSEADDR), 0);
  EXPECT_EQ(option(listener, SOL_SOCKET, SO_REUSEPORT), 0);
  EXPECT_EQ(option(listener, SOL_SOCKET, SO_ACCEPTCONN), 1);
  EXPECT_EQ(option(listener, IPPROTO_TCP, TCP_NODELAY), 0);
  EXPECT_EQ(option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT), 0);
  EXPECT_EQ(backlog_of(listener), kBacklog);
}

TEST(TcpListenerTest, OptionsReachTheSocket) {
  const Listener listener = open_one("127.0.0.1:0,rn,reuseport,backlog=7,defer,fastopen=5,nodelay");
  EXPECT_TRUE(is_cloexec(listener.fd.get()));
  EXPECT_TRUE(is_nonblocking(listener.fd.get()));
  EXPECT_EQ(option(listener, SOL_SOCKET, SO_REUSEADDR), 1);
  EXPECT_EQ(option(listener, SOL_SOCKET, SO_REUSEPORT), 1);
  EXPECT_GE(option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT), 1);
  EXPECT_EQ(option(listener, IPPROTO_TCP, TCP_FASTOPEN), 5);
  EXPECT_EQ(backlog_of(listener), 7);
}

TEST(TcpListenerTest, AcceptedSocketsInheritNodelay) {
  const Listener listener = open_one("127.0.0.1:0,nodelay");
  const UniqueFd accepted = connect_and_accept(listener, ipv4("127.0.0.1", listener.port));
  ASSERT_TRUE(accepted);
  int value = 0;
  socklen_t length = sizeof value;
  ASSERT_EQ(getsockopt(accepted.get(), IPPROTO_TCP, TCP_NODELAY, &value, &length), 0);
  EXPECT_EQ(value, 1);
}

TEST(TcpListenerTest, AllAddressesIsOneSocketForBothFamilies) {
  NEEDS_IPV6();
  for (const char* text : {"0", ":0", "*:0", "[::]:0"}) {
    SCOPED_TRACE(text);
    const Listener listener = open_one(text);
    EXPECT_EQ(listener.address, with_port("[::]", listener.port));
    EXPECT_TRUE(connect_and_accept(listener, ipv4("127.0.0.1", listener.port)));
    EXPECT_TRUE(connect_and_accept(listener, ipv6("::1", listener.port)));
  }
}

TEST(TcpListenerTest, V6OnlyLeavesIpv4Alone) {
  NEEDS_IPV6();
  const Listener v6 = open_one("[::]:0,v6only");
  EXPECT_TRUE(connect_and_accept(v6, ipv6("::1", v6.port)));
  const Listener v4 = open_one(with_port("0.0.0.0", v6.port));
  EXPECT_EQ(v4.port, v6.port);
  EXPECT_TRUE(connect_and_accept(v4, ipv4("127.0.0.1", v4.port)));
}

TEST(TcpListenerTest, OneIpv6Address) {
  NEEDS_IPV6();
  const Listener listener = open_one("[::1]:0");
  EXPECT_EQ(listener.address, with_port("[::1]", listener.port));
  EXPECT_TRUE(connect_and_accept(listener, ipv6("::1", listener.port)));
  EXPECT_FALSE(connect_to(ipv4("127.0.0.1", listener.port)));
}

TEST(TcpListenerTest, TakenPortIsRefusedWithTheAddress) {
  const Listener first = open_one("127.0.0.1:0");
  const std::string text = with_port("127.0.0.1", first.port);
  const std::size_t before = open_descriptors();
  const Opened second = try_open(text);
  expect_refused(second, "-b " + text + ": bind " + text + ": Address already in use");
  EXPECT_EQ(second.error().code, EADDRINUSE);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(TcpListenerTest, ReuseportSharesAPort) {
  const Listener first = open_one("127.0.0.1:0,reuseport");
  const Listener second = open_one(with_port("127.0.0.1", first.port) + ",reuseport");
  EXPECT_EQ(first.port, second.port);
}

TEST(TcpListenerTest, AddressOfAnotherMachineIsRefused) {
  expect_refused(try_open("192.0.2.1:0"),
                 "-b 192.0.2.1:0: bind 192.0.2.1:0: Cannot assign requested address");
}

TEST(TcpListenerTest, UnknownZoneIsRefused) {
  const Opened opened = try_open("[fe80::1%nosuchzone]:0");
  ASSERT_FALSE(opened.has_value());
  EXPECT_TRUE(opened.error().message().starts_with(
      "-b [fe80::1%nosuchzone]:0: look up fe80::1%nosuchzone: "))
      << opened.error().message();
}

TEST(TcpListenerTest, NameOpensEachOfItsAddressesOnOnePort) {
  const Listeners all = open_all("localhost:0");
  ASSERT_FALSE(all.empty());
  std::map<std::string, int> addresses;
  for (const Listener& listener : all) {
    EXPECT_EQ(listener.port, all.front().port);
    EXPECT_EQ(++addresses[listener.address], 1) << listener.address << " is there twice";
    const bool v6 = listener.address.starts_with('[');
    EXPECT_EQ(listener.address, with_port(v6 ? "[::1]" : "127.0.0.1", listener.port));
    EXPECT_TRUE(connect_and_accept(
        listener, v6 ? ipv6("::1", listener.port) : ipv4("127.0.0.1", listener.port)));
  }
}

BindSpec spec_of(const std::string& text) {
  const Result<BindSpec> spec = parse_bind_spec(text);
  EXPECT_TRUE(spec.has_value());
  return spec ? *spec : BindSpec{};
}

TEST(AddressGroupTest, ChosenPortIsTheSameForBothFamilies) {
  NEEDS_IPV6();
  for (const char* text : {"localhost:0", "udp:localhost:0"}) {
    SCOPED_TRACE(text);
    const Opened group = listeners::open_addresses(
        spec_of(text), {ipv4("127.0.0.1", 0), ipv6("::1", 0), ipv4("127.0.0.2", 0)}, kBacklog);
    ASSERT_TRUE(group.has_value()) << group.error().message();
    ASSERT_EQ(group->size(), 3u);
    EXPECT_NE((*group)[0].port, 0);
    EXPECT_EQ((*group)[1].port, (*group)[0].port);
    EXPECT_EQ((*group)[2].port, (*group)[0].port);
  }
}

TEST(AddressGroupTest, WildcardsOfBothFamiliesStandSideBySide) {
  NEEDS_IPV6();
  const Opened group = listeners::open_addresses(spec_of("everywhere:0"),
                                                 {ipv6("::", 0), ipv4("0.0.0.0", 0)}, kBacklog);
  ASSERT_TRUE(group.has_value()) << group.error().message();
  EXPECT_EQ((*group)[0].port, (*group)[1].port);
}

TEST(AddressGroupTest, ConflictThatDoesNotGoAwayEndsTheAttempts) {
  const std::size_t before = open_descriptors();
  const Opened group = listeners::open_addresses(
      spec_of("name:0"), {ipv4("127.0.0.1", 0), ipv4("127.0.0.1", 0)}, kBacklog);
  ASSERT_FALSE(group.has_value());
  EXPECT_EQ(group.error().code, EADDRINUSE);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(AddressGroupTest, OneFailureClosesAll) {
  const std::size_t before = open_descriptors();
  const Opened group = listeners::open_addresses(
      spec_of("name:0"), {ipv4("127.0.0.1", 0), ipv4("192.0.2.1", 0)}, kBacklog);
  ASSERT_FALSE(group.has_value());
  EXPECT_EQ(group.error().code, EADDRNOTAVAIL);
  EXPECT_EQ(open_descriptors(), before);
}

void send_and_receive(const Listener& listener, const listeners::Address& address) {
  const UniqueFd client(socket(address.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(sendto(client.get(), "hi", 2, 0, address.get(), address.length), 2) << strerror(errno);
  ASSERT_TRUE(readable(listener.fd.get()));
  char buffer[8];
  EXPECT_EQ(recv(listener.fd.get(), buffer, sizeof buffer, 0), 2);
}

TEST(UdpListenerTest, ReceivesOnIpv4) {
  const Listener listener = open_one("udp:127.0.0.1:0,n");
  EXPECT_EQ(listener.address, with_port("udp:127.0.0.1", listener.port));
  EXPECT_TRUE(is_cloexec(listener.fd.get()));
  EXPECT_TRUE(is_nonblocking(listener.fd.get()));
  EXPECT_EQ(option(listener, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
  send_and_receive(listener, ipv4("127.0.0.1", listener.port));
}

TEST(UdpListenerTest, ReceivesOnBothFamilies) {
  NEEDS_IPV6();
  const Listener listener = open_one("udp:0");
  EXPECT_EQ(listener.address, with_port("udp:[::]", listener.port));
  EXPECT_FALSE(is_nonblocking(listener.fd.get()));
  send_and_receive(listener, ipv4("127.0.0.1", listener.port));
  send_and_receive(listener, ipv6("::1", listener.port));
}

TEST(UdpListenerTest, TakenPortIsRefused) {
  const Listener first = open_one("udp:127.0.0.1:0");
  const std::string text = with_port("udp:127.0.0.1", first.port);
  expect_refused(try_open(text), "-b " + text + ": bind " + text + ": Address already in use");
}

class UnixListenerTest : public UnixSocketFolder {};

TEST_F(UnixListenerTest, ListensAndRemembersItsFile) {
  const Listener listener = open_one(text());
  EXPECT_EQ(listener.address, text());
  EXPECT_EQ(listener.port, 0);
  EXPECT_TRUE(is_cloexec(listener.fd.get()));
  EXPECT_FALSE(is_nonblocking(listener.fd.get()));
  EXPECT_EQ(listener.device, status_of(path()).st_dev);
  EXPECT_EQ(listener.inode, status_of(path()).st_ino);
  EXPECT_TRUE(connect_and_accept(listener, unix_path(path())));
  EXPECT_TRUE(is_nonblocking(open_one("unix:" + path("n") + ",n").fd.get()));
}

TEST_F(UnixListenerTest, ModeIsTheUmasksUnlessGiven) {
  EXPECT_NE(open_one(text()).inode, 0u);
  EXPECT_EQ(mode_of(path()), 0755u);
  const std::vector<std::pair<std::string, unsigned>> modes = {
      {"0600", 0600}, {"0660", 0660}, {"666", 0666}, {"0777", 0777}, {"0", 0}};
  umask(077);
  for (const auto& [written, mode] : modes) {
    const std::string file = path(written);
    std::string spec = "unix:";
    spec.append(file).append(",mode=").append(written);
    EXPECT_NE(open_one(spec).inode, 0u);
    EXPECT_EQ(mode_of(file), mode);
  }
  EXPECT_EQ(umask(077), 077u) << "the umask was not put back";
}

TEST_F(UnixListenerTest, OwnerByNumberAndName) {
  const Listener own = open_one(text(",user=" + std::to_string(geteuid()) +
                                     ",group=" + std::to_string(getegid()) + ",mode=0640"));
  EXPECT_EQ(status_of(path()).st_uid, geteuid());
  EXPECT_EQ(status_of(path()).st_gid, getegid());
  EXPECT_EQ(mode_of(path()), 0640u);
  if (geteuid() != 0) {
    GTEST_SKIP() << "only root can give files away";
  }
  const std::string root_file = path("root");
  EXPECT_TRUE(open_one("unix:" + root_file + ",user=root,group=root").fd);
  EXPECT_EQ(status_of(root_file).st_uid, 0u);
  const std::string given = path("given");
  EXPECT_TRUE(open_one("unix:" + given + ",user=12345,group=23456,mode=0660").fd);
  EXPECT_EQ(status_of(given).st_uid, 12345u);
  EXPECT_EQ(status_of(given).st_gid, 23456u);
  EXPECT_EQ(mode_of(given), 0660u);
}

TEST_F(UnixListenerTest, UnknownOwnerIsRefusedBeforeAnythingIsMade) {
  expect_refused(try_open(text(",user=no-such-user")),
                 "-b " + text(",user=no-such-user") + ": user=no-such-user: no such user");
  expect_refused(try_open(text(",group=no-such-group")),
                 "-b " + text(",group=no-such-group") + ": group=no-such-group: no such group");
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(UnixListenerTest, DeadSocketFileIsReplaced) {
  for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
    foreign_socket(type, -1).reset();
    ASSERT_TRUE(S_ISSOCK(status_of(path()).st_mode));
    const Listener listener = open_one(text(",mode=0600"));
    EXPECT_TRUE(connect_and_accept(listener, unix_path(path())));
    EXPECT_EQ(mode_of(path()), 0600u);
    remove_socket_file(listener);
  }
}

TEST_F(UnixListenerTest, LivingSocketIsRefusedAndLeftAlone) {
  const std::size_t before = open_descriptors();
  {
    const Listener living = open_one(text());
    const Opened second = try_open(text());
    expect_refused(second, "-b " + text() + ": bind " + text() +
                               ": a living socket is there: Address already in use");
    EXPECT_EQ(status_of(path()).st_ino, living.inode);
    EXPECT_TRUE(connect_and_accept(living, unix_path(path())));
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(UnixListenerTest, LivingSocketWithAFullBacklogIsRefused) {
  const UniqueFd living = foreign_socket(SOCK_STREAM, 0);
  std::vector<UniqueFd> clients;
  do {
    clients.push_back(connect_to(unix_path(path()), SOCK_NONBLOCK));
    ASSERT_LT(clients.size(), 100u);
  } while (clients.back());
  ASSERT_EQ(errno, EAGAIN);
  const Opened second = try_open(text());
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message().find("a living socket is there"), std::string::npos);
}

TEST_F(UnixListenerTest, LivingSocketOfAnotherTypeIsRefused) {
  const UniqueFd living = foreign_socket(SOCK_DGRAM, -1);
  const Opened second = try_open(text());
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message().find("a living socket is there"), std::string::npos);
  EXPECT_TRUE(S_ISSOCK(status_of(path()).st_mode));
}

TEST_F(UnixListenerTest, OtherFilesAreRefusedAndLeftAlone) {
  const std::string refusal = "-b " + text() + ": bind " + text() +
                              ": there is a file that is no socket: Address already in use";
  std::ofstream(path()) << "precious";
  expect_refused(try_open(text()), refusal);
  EXPECT_EQ(std::filesystem::file_size(path()), 8u);
  std::filesystem::remove(path());

  std::filesystem::create_directory(path());
  expect_refused(try_open(text()), refusal);
  std::filesystem::remove(path());

  std::filesystem::create_symlink(path("elsewhere"), path());
  expect_refused(try_open(text()), refusal);
  EXPECT_TRUE(std::filesystem::is_symlink(path()));
  EXPECT_FALSE(std::filesystem::exists(path("elsewhere")));
}

TEST_F(UnixListenerTest, SymlinkToADeadSocketIsNotFollowed) {
  foreign_socket(SOCK_STREAM, -1).reset();
  std::filesystem::create_symlink(path(), path("link"));
  EXPECT_FALSE(try_open("unix:" + path("link")).has_value());
  EXPECT_TRUE(std::filesystem::is_symlink(path("link")));
  EXPECT_TRUE(S_ISSOCK(status_of(path()).st_mode));
}

TEST_F(UnixListenerTest, MissingFolderIsRefused) {
  const std::string missing = "unix:" + path("no/such/s");
  expect_refused(try_open(missing),
                 "-b " + missing + ": bind " + missing + ": No such file or directory");
}

TEST_F(UnixListenerTest, OnlyItsOwnFileIsRemoved) {
  const Listener listener = open_one(text());
  remove_socket_file(listener);
  EXPECT_FALSE(std::filesystem::exists(path()));
  remove_socket_file(listener);

  const Listener successor = open_one(text());
  remove_socket_file(listener);
  EXPECT_TRUE(std::filesystem::exists(path())) << "the successor's file was removed";
  std::filesystem::remove(path());
  std::ofstream(path()) << "precious";
  remove_socket_file(successor);
  EXPECT_TRUE(std::filesystem::exists(path()));
}

TEST_F(UnixListenerTest, LongestPath) {
  const std::string file = path(std::string(107 - path("").size(), 'x'));
  ASSERT_EQ(file.size(), 107u);
  const Listener listener = open_one("unix:" + file);
  EXPECT_EQ(listener.address, "unix:" + file);
  EXPECT_TRUE(std::filesystem::exists(file));
}

TEST_F(UnixListenerTest, AbstractNames) {
  std::string unique = "unix:@" + path();
  const Listener listener = open_one(unique);
  EXPECT_EQ(listener.address, unique);
  EXPECT_EQ(listener.inode, 0u);
  expect_refused(try_open(unique),
                 "-b " + unique + ": bind " + unique + ": Address already in use");
  unique.resize(5 + 108, 'x');
  EXPECT_EQ(open_one(unique).address, unique);
  remove_socket_file(listener);
  listeners::Address address = unix_path(" " + path());
  reinterpret_cast<sockaddr_un&>(address.storage).sun_path[0] = '\0';
  --address.length;
  EXPECT_TRUE(connect_and_accept(listener, address));
}

TEST(UniqueFdTest, ClosesOnceAndKeepsErrno) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd write_end(fds[1]);
  UniqueFd first(fds[0]);
  UniqueFd second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT: that is the contract
  EXPECT_EQ(second.get(), fds[0]);
  errno = EPROTO;
  second.reset();
  EXPECT_EQ(errno, EPROTO);
  EXPECT_EQ(fcntl(fds[0], F_GETFD), -1);
  errno = EPROTO;
  close_descriptor(-1);
  EXPECT_EQ(errno, EPROTO);
}

}  // namespace
}  // namespace einhorn::os::listeners_test
