// The address that a program gave to bind(), read from bytes that nobody vouches for.
//
// Pure: bytes in, value out. Whatever the bytes are, reading stays within them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace einhorn::intercept {

struct SocketAddress {
  enum class Kind {
    kOther,     // not one that could be shared; also: malformed, the kernel will say how
    kInet,      // an IPv4 address and a port
    kInet6,     // an IPv6 address and a port
    kPath,      // a unix socket with a file
    kAbstract,  // a unix socket with a name and no file
  };
  Kind kind = Kind::kOther;
  std::array<std::uint8_t, 16> ip{};  // kInet: the first four bytes
  std::uint16_t port = 0;
  std::uint32_t scope = 0;  // kInet6
  std::string path;         // kPath, kAbstract

  friend bool operator==(const SocketAddress&, const SocketAddress&) = default;
};

// More than any address that we could share; the kernel itself allows 128.
inline constexpr std::size_t kMaxAddressBytes = 128;

[[nodiscard]] SocketAddress decode_address(std::span<const std::uint8_t> bytes);

// The bytes for bind(); empty for kOther.
[[nodiscard]] std::string encode_address(const SocketAddress& address);

// 0.0.0.0, ::, ::ffff:0.0.0.0.
[[nodiscard]] bool is_wildcard(const SocketAddress& address);
// Both as IPv6 addresses, IPv4 ones mapped.
[[nodiscard]] std::array<std::uint8_t, 16> as_ipv6(const SocketAddress& address);
[[nodiscard]] bool is_mapped(const std::array<std::uint8_t, 16>& ip);

// "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@name", "?".
[[nodiscard]] std::string format(const SocketAddress& address);

}  // namespace einhorn::intercept
