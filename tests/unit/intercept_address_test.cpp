#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "intercept/address.h"

namespace einhorn::intercept {
namespace {

using Kind = SocketAddress::Kind;

template <typename Raw>
std::vector<std::uint8_t> bytes_of(const Raw& raw, std::size_t length = sizeof(Raw)) {
  std::vector<std::uint8_t> bytes(length);
  std::memcpy(bytes.data(), &raw, std::min(length, sizeof(raw)));
  return bytes;
}

sockaddr_in inet(const char* ip, std::uint16_t port) {
  sockaddr_in raw{};
  raw.sin_family = AF_INET;
  raw.sin_port = htons(port);
  inet_pton(AF_INET, ip, &raw.sin_addr);
  return raw;
}

sockaddr_in6 inet6(const char* ip, std::uint16_t port) {
  sockaddr_in6 raw{};
  raw.sin6_family = AF_INET6;
  raw.sin6_port = htons(port);
  raw.sin6_scope_id = 3;
  inet_pton(AF_INET6, ip, &raw.sin6_addr);
  return raw;
}

TEST(SocketAddress, ReadsInternetAddresses) {
  const SocketAddress four = decode_address(bytes_of(inet("10.1.2.3", 8080)));
  EXPECT_EQ(four.kind, Kind::kInet);
  EXPECT_EQ(format(four), "10.1.2.3:8080");
  const SocketAddress six = decode_address(bytes_of(inet6("fe80::1", 80)));
  EXPECT_EQ(six.kind, Kind::kInet6);
  EXPECT_EQ(six.scope, 3U);
  EXPECT_EQ(format(six), "[fe80::1]:80");
  // The short form of old programs.
  EXPECT_EQ(decode_address(bytes_of(inet6("::1", 80), 24)).kind, Kind::kInet6);
  EXPECT_EQ(decode_address(bytes_of(inet6("::1", 80), 23)).kind, Kind::kOther);
  EXPECT_EQ(decode_address(bytes_of(inet("10.1.2.3", 80), 15)).kind, Kind::kOther);
}

TEST(SocketAddress, ReadsUnixAddresses) {
  sockaddr_un raw{};
  raw.sun_family = AF_UNIX;
  std::strcpy(raw.sun_path, "/run/a.sock");
  EXPECT_EQ(format(decode_address(bytes_of(raw))), "unix:/run/a.sock");
  EXPECT_EQ(decode_address(bytes_of(raw, 2)).kind, Kind::kOther) << "the kernel names it";
  EXPECT_EQ(decode_address(bytes_of(raw, 111)).kind, Kind::kOther) << "longer than there is";
  std::memset(raw.sun_path, 'x', sizeof(raw.sun_path));
  EXPECT_EQ(decode_address(bytes_of(raw)).path.size(), sizeof(raw.sun_path)) << "no NUL";
  raw.sun_path[0] = '\0';
  const SocketAddress abstract = decode_address(bytes_of(raw, 6));
  EXPECT_EQ(abstract.kind, Kind::kAbstract);
  EXPECT_EQ(abstract.path, "xxx");
  SocketAddress evil;
  evil.kind = Kind::kPath;
  evil.path = "/a\n\x1b[31m";
  EXPECT_EQ(format(evil), "unix:/a??[31m") << "nothing that acts on a terminal";
}

TEST(SocketAddress, EncodesWhatItReads) {
  for (const auto& bytes : {bytes_of(inet("10.1.2.3", 8080)), bytes_of(inet6("::1", 9))}) {
    const SocketAddress address = decode_address(bytes);
    const std::string again = encode_address(address);
    EXPECT_EQ(std::vector<std::uint8_t>(again.begin(), again.end()), bytes);
  }
  for (const Kind kind : {Kind::kPath, Kind::kAbstract}) {
    SocketAddress address;
    address.kind = kind;
    address.path = "/x/y";
    const std::string bytes = encode_address(address);
    EXPECT_EQ(decode_address({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}),
              address);
  }
  EXPECT_EQ(encode_address({}), "");
}

TEST(SocketAddress, AnyBytesAreReadWithinTheirBounds) {
  std::mt19937 random(1);
  for (int i = 0; i < 100'000; ++i) {
    std::vector<std::uint8_t> bytes(random() % (kMaxAddressBytes + 1));
    for (std::uint8_t& byte : bytes) {
      byte = static_cast<std::uint8_t>(random());
    }
    if (bytes.size() >= 2) {
      const std::uint16_t families[] = {AF_UNIX, AF_INET, AF_INET6, AF_UNSPEC};
      std::memcpy(bytes.data(), &families[random() % 4], 2);
    }
    const SocketAddress address = decode_address(bytes);
    EXPECT_LE(address.path.size(), sizeof(sockaddr_un::sun_path));
    EXPECT_FALSE(format(address).empty());
  }
}

TEST(SocketAddress, KnowsAllAddresses) {
  EXPECT_TRUE(is_wildcard(decode_address(bytes_of(inet("0.0.0.0", 1)))));
  EXPECT_TRUE(is_wildcard(decode_address(bytes_of(inet6("::", 1)))));
  EXPECT_TRUE(is_wildcard(decode_address(bytes_of(inet6("::ffff:0.0.0.0", 1)))));
  EXPECT_FALSE(is_wildcard(decode_address(bytes_of(inet("127.0.0.1", 1)))));
  EXPECT_FALSE(is_wildcard(decode_address(bytes_of(inet6("::1", 1)))));
  EXPECT_EQ(as_ipv6(decode_address(bytes_of(inet("1.2.3.4", 1)))),
            as_ipv6(decode_address(bytes_of(inet6("::ffff:1.2.3.4", 1)))));
}

}  // namespace
}  // namespace einhorn::intercept
