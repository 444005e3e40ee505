#include "intercept/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace einhorn::intercept {
namespace {

// As the kernel has them; sockaddr_in6 was shorter once, and still may be.
constexpr std::size_t kInetBytes = 16;
constexpr std::size_t kShortInet6Bytes = 24;
constexpr std::size_t kInet6Bytes = 28;
constexpr std::size_t kPathOffset = offsetof(sockaddr_un, sun_path);

std::uint16_t big_endian(std::span<const std::uint8_t> two) {
  return static_cast<std::uint16_t>((two[0] << 8U) | two[1]);
}

SocketAddress decode_unix(std::span<const std::uint8_t> bytes) {
  SocketAddress address;
  if (bytes.size() <= kPathOffset || bytes.size() > sizeof(sockaddr_un)) {
    return address;  // without a name: the kernel chooses one
  }
  const std::span<const std::uint8_t> name = bytes.subspan(kPathOffset);
  if (name[0] == 0) {
    address.kind = SocketAddress::Kind::kAbstract;
    address.path.assign(name.begin() + 1, name.end());
  } else {
    address.kind = SocketAddress::Kind::kPath;
    address.path.assign(name.begin(), std::find(name.begin(), name.end(), 0));
  }
  return address;
}

template <typename T>
void append(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace

SocketAddress decode_address(std::span<const std::uint8_t> bytes) {
  SocketAddress address;
  std::uint16_t family = AF_UNSPEC;
  if (bytes.size() < sizeof(family)) {
    return address;
  }
  std::memcpy(&family, bytes.data(), sizeof(family));
  if (family == AF_UNIX) {
    return decode_unix(bytes);
  }
  if (family == AF_INET && bytes.size() >= kInetBytes) {
    address.kind = SocketAddress::Kind::kInet;
    address.port = big_endian(bytes.subspan(2, 2));
    std::copy_n(bytes.begin() + 4, 4, address.ip.begin());
  } else if (family == AF_INET6 && bytes.size() >= kShortInet6Bytes) {
    address.kind = SocketAddress::Kind::kInet6;
    address.port = big_endian(bytes.subspan(2, 2));
    std::copy_n(bytes.begin() + 8, 16, address.ip.begin());
    if (bytes.size() >= kInet6Bytes) {
      std::memcpy(&address.scope, bytes.data() + 24, sizeof(address.scope));
    }
  }
  return address;
}

std::string encode_address(const SocketAddress& address) {
  std::string bytes;
  switch (address.kind) {
    case SocketAddress::Kind::kOther:
      return bytes;
    case SocketAddress::Kind::kInet: {
      sockaddr_in raw{};
      raw.sin_family = AF_INET;
      raw.sin_port = htons(address.port);
      std::memcpy(&raw.sin_addr, address.ip.data(), sizeof(raw.sin_addr));
      append(bytes, raw);
      return bytes;
    }
    case SocketAddress::Kind::kInet6: {
      sockaddr_in6 raw{};
      raw.sin6_family = AF_INET6;
      raw.sin6_port = htons(address.port);
      std::memcpy(&raw.sin6_addr, address.ip.data(), sizeof(raw.sin6_addr));
      raw.sin6_scope_id = address.scope;
      append(bytes, raw);
      return bytes;
    }
    case SocketAddress::Kind::kPath:
    case SocketAddress::Kind::kAbstract: {
      const sa_family_t family = AF_UNIX;
      append(bytes, family);
      if (address.kind == SocketAddress::Kind::kAbstract) {
        bytes.push_back('\0');
      }
      bytes += address.path;
      if (address.kind == SocketAddress::Kind::kPath && bytes.size() < sizeof(sockaddr_un)) {
        bytes.push_back('\0');
      }
      return bytes;
    }
  }
  return bytes;
}

std::array<std::uint8_t, 16> as_ipv6(const SocketAddress& address) {
  if (address.kind != SocketAddress::Kind::kInet) {
    return address.ip;
  }
  std::array<std::uint8_t, 16> ip{};
  ip[10] = 0xff;
  ip[11] = 0xff;
  std::copy_n(address.ip.begin(), 4, ip.begin() + 12);
  return ip;
}

bool is_mapped(const std::array<std::uint8_t, 16>& ip) {
  return std::all_of(ip.begin(), ip.begin() + 10, [](std::uint8_t byte) { return byte == 0; }) &&
         ip[10] == 0xff && ip[11] == 0xff;
}

bool is_wildcard(const SocketAddress& address) {
  const std::array<std::uint8_t, 16> ip = as_ipv6(address);
  const auto zero = [](std::uint8_t byte) { return byte == 0; };
  return is_mapped(ip) ? std::all_of(ip.begin() + 12, ip.end(), zero)
                       : std::all_of(ip.begin(), ip.end(), zero);
}

std::string format(const SocketAddress& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  switch (address.kind) {
    case SocketAddress::Kind::kOther:
      return "?";
    case SocketAddress::Kind::kInet:
      inet_ntop(AF_INET, address.ip.data(), text.data(), text.size());
      return std::string(text.data()) + ":" + std::to_string(address.port);
    case SocketAddress::Kind::kInet6:
      inet_ntop(AF_INET6, address.ip.data(), text.data(), text.size());
      return "[" + std::string(text.data()) + "]:" + std::to_string(address.port);
    case SocketAddress::Kind::kPath:
    case SocketAddress::Kind::kAbstract: {
      std::string shown = address.kind == SocketAddress::Kind::kPath ? "unix:" : "unix:@";
      for (const char letter : address.path) {
        // A program's own bytes: nothing of them may act on a terminal or begin a line.
        shown += letter > ' ' && letter < 0x7f ? letter : '?';
      }
      return shown;
    }
  }
  return "?";
}

}  // namespace einhorn::intercept
