#include "intercept/carried.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>

#include "os/unique_fd.h"

namespace einhorn::intercept {
namespace {

enum class For { kAll, kInet, kInet6, kTcp };

struct Rule {
  int level;
  int name;
  const char* text;
  For what;
  bool refused;
};

// SO_REUSEADDR, SO_REUSEPORT and IPV6_V6ONLY are not here: they say how the address is taken, and
// the shared socket has it.
constexpr std::array kRules = {
    Rule{SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE", For::kAll, false},
    Rule{SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF", For::kAll, false},
    Rule{SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF", For::kAll, false},
    Rule{SOL_SOCKET, SO_RCVLOWAT, "SO_RCVLOWAT", For::kAll, false},
    Rule{SOL_SOCKET, SO_RCVTIMEO, "SO_RCVTIMEO", For::kAll, false},
    Rule{SOL_SOCKET, SO_SNDTIMEO, "SO_SNDTIMEO", For::kAll, false},
    Rule{SOL_SOCKET, SO_LINGER, "SO_LINGER", For::kAll, false},
    Rule{SOL_SOCKET, SO_PRIORITY, "SO_PRIORITY", For::kAll, false},
    Rule{SOL_SOCKET, SO_MARK, "SO_MARK", For::kAll, false},
    Rule{SOL_SOCKET, SO_BROADCAST, "SO_BROADCAST", For::kAll, false},
    Rule{SOL_SOCKET, SO_TIMESTAMP, "SO_TIMESTAMP", For::kAll, false},
    Rule{SOL_SOCKET, SO_PASSCRED, "SO_PASSCRED", For::kAll, false},
    Rule{SOL_SOCKET, SO_BINDTODEVICE, "SO_BINDTODEVICE", For::kInet, true},
    Rule{IPPROTO_IP, IP_TRANSPARENT, "IP_TRANSPARENT", For::kInet, true},
    Rule{IPPROTO_IP, IP_TOS, "IP_TOS", For::kInet, false},
    Rule{IPPROTO_IP, IP_TTL, "IP_TTL", For::kInet, false},
    Rule{IPPROTO_IP, IP_PKTINFO, "IP_PKTINFO", For::kInet, false},
    Rule{IPPROTO_IP, IP_RECVTOS, "IP_RECVTOS", For::kInet, false},
    Rule{IPPROTO_IP, IP_RECVTTL, "IP_RECVTTL", For::kInet, false},
    Rule{IPPROTO_IP, IP_MTU_DISCOVER, "IP_MTU_DISCOVER", For::kInet, false},
    Rule{IPPROTO_IPV6, IPV6_TCLASS, "IPV6_TCLASS", For::kInet6, false},
    Rule{IPPROTO_IPV6, IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS", For::kInet6, false},
    Rule{IPPROTO_IPV6, IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO", For::kInet6, false},
    Rule{IPPROTO_IPV6, IPV6_RECVTCLASS, "IPV6_RECVTCLASS", For::kInet6, false},
    Rule{IPPROTO_IPV6, IPV6_MTU_DISCOVER, "IPV6_MTU_DISCOVER", For::kInet6, false},
    Rule{IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY", For::kTcp, false},
    Rule{IPPROTO_TCP, TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT", For::kTcp, false},
    Rule{IPPROTO_TCP, TCP_FASTOPEN, "TCP_FASTOPEN", For::kTcp, false},
    Rule{IPPROTO_TCP, TCP_KEEPIDLE, "TCP_KEEPIDLE", For::kTcp, false},
    Rule{IPPROTO_TCP, TCP_KEEPINTVL, "TCP_KEEPINTVL", For::kTcp, false},
    Rule{IPPROTO_TCP, TCP_KEEPCNT, "TCP_KEEPCNT", For::kTcp, false},
    Rule{IPPROTO_TCP, TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT", For::kTcp, false},
    Rule{IPPROTO_TCP, TCP_CONGESTION, "TCP_CONGESTION", For::kTcp, false},
};

std::optional<std::string> read_option(int socket, int level, int name) {
  std::array<char, 64> value{};
  socklen_t length = value.size();
  if (getsockopt(socket, level, name, value.data(), &length) != 0) {
    return std::nullopt;
  }
  return std::string(value.data(), length);
}

int number_option(int socket, int name) {
  int value = -1;
  socklen_t length = sizeof(value);
  return getsockopt(socket, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

bool applies(For what, int domain, int type) {
  const bool inet = domain == AF_INET || domain == AF_INET6;
  switch (what) {
    case For::kAll:
      return true;
    case For::kInet:
      return inet;
    case For::kInet6:
      return domain == AF_INET6;
    case For::kTcp:
      return inet && type == SOCK_STREAM;
  }
  return false;
}

}  // namespace

std::vector<SetOption> options_set(int socket) {
  std::vector<SetOption> set;
  const int domain = number_option(socket, SO_DOMAIN);
  const int type = number_option(socket, SO_TYPE);
  const os::UniqueFd fresh(::socket(domain, type | SOCK_CLOEXEC, 0));
  if (!fresh) {
    return set;
  }
  for (const Rule& rule : kRules) {
    if (!applies(rule.what, domain, type)) {
      continue;
    }
    std::optional<std::string> value = read_option(socket, rule.level, rule.name);
    if (value && value != read_option(fresh.get(), rule.level, rule.name)) {
      set.push_back({rule.level, rule.name, rule.text, std::move(*value), rule.refused});
    }
  }
  return set;
}

bool carry_over(const SetOption& option, int shared) {
  if (read_option(shared, option.level, option.name) == option.value) {
    return true;
  }
  std::string value = option.value;
  if (option.level == SOL_SOCKET && (option.name == SO_SNDBUF || option.name == SO_RCVBUF) &&
      value.size() == sizeof(int)) {
    int bytes = 0;
    std::memcpy(&bytes, value.data(), sizeof(bytes));
    bytes /= 2;  // the kernel doubles what it is given
    std::memcpy(value.data(), &bytes, sizeof(bytes));
  }
  return setsockopt(shared, option.level, option.name, value.data(),
                    static_cast<socklen_t>(value.size())) == 0;
}

}  // namespace einhorn::intercept
