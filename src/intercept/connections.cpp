#include "intercept/connections.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::intercept {
namespace {

using Kind = SocketAddress::Kind;

constexpr std::size_t kMostAnswerBytes = 64 * 1024;
// All but listening and those that nobody holds any more.
constexpr unsigned kConnected = (1U << TCP_ESTABLISHED) | (1U << TCP_FIN_WAIT1) |
                                (1U << TCP_FIN_WAIT2) | (1U << TCP_CLOSE_WAIT) |
                                (1U << TCP_LAST_ACK) | (1U << TCP_CLOSING);

// One request for a list, and `each` for every entry of the answer. False: refused.
template <typename Request, typename Each>
bool list(int netlink, const Request& body, Each each) {
  struct {
    nlmsghdr head;
    Request body;
  } request{};
  request.head.nlmsg_len = sizeof(request);
  request.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body = body;
  if (os::retry([&] { return send(netlink, &request, sizeof(request), 0); }) < 0) {
    return false;
  }
  // Not on the stack, nor thread-local, which lives there too: the threads' stacks are small.
  std::vector<char> answer(kMostAnswerBytes);
  for (;;) {
    const ssize_t count = os::retry([&] { return recv(netlink, answer.data(), answer.size(), 0); });
    if (count <= 0) {
      return false;
    }
    auto left = static_cast<std::size_t>(count);
    for (const char* at = answer.data(); left >= sizeof(nlmsghdr);) {
      nlmsghdr head;
      std::memcpy(&head, at, sizeof(head));
      if (head.nlmsg_len < sizeof(head) || head.nlmsg_len > left) {
        return false;
      }
      if (head.nlmsg_type == NLMSG_DONE) {
        return true;
      }
      if (head.nlmsg_type == NLMSG_ERROR) {
        return false;
      }
      each(std::string_view(at + NLMSG_HDRLEN, head.nlmsg_len - NLMSG_HDRLEN));
      const std::size_t whole = std::min<std::size_t>(NLMSG_ALIGN(head.nlmsg_len), left);
      at += whole;
      left -= whole;
    }
  }
}

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 3) / 4 * 4; }
constexpr std::size_t kAttributeHead = aligned(sizeof(nlattr));

template <typename Each>
bool list_tcp(int netlink, std::uint8_t family, Each each) {
  inet_diag_req_v2 request{};
  request.sdiag_family = family;
  request.sdiag_protocol = IPPROTO_TCP;
  request.idiag_states = kConnected;
  return list(netlink, request, [&](std::string_view entry) {
    inet_diag_msg message;
    if (entry.size() < sizeof(message)) {
      return;
    }
    std::memcpy(&message, entry.data(), sizeof(message));
    each(message);
  });
}

// `each` gets what it is, its name and the inode of its other end.
template <typename Each>
bool list_unix(int netlink, Each each) {
  unix_diag_req request{};
  request.sdiag_family = AF_UNIX;
  request.udiag_states = (1U << TCP_ESTABLISHED) | (1U << TCP_CLOSE);
  request.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER;
  return list(netlink, request, [&](std::string_view entry) {
    unix_diag_msg message;
    if (entry.size() < sizeof(message)) {
      return;
    }
    std::memcpy(&message, entry.data(), sizeof(message));
    entry.remove_prefix(std::min(aligned(sizeof(message)), entry.size()));
    std::string_view name;
    std::uint32_t peer = 0;
    while (entry.size() >= kAttributeHead) {
      nlattr attribute;
      std::memcpy(&attribute, entry.data(), sizeof(attribute));
      if (attribute.nla_len < kAttributeHead || attribute.nla_len > entry.size()) {
        return;
      }
      const std::string_view value =
          entry.substr(kAttributeHead, attribute.nla_len - kAttributeHead);
      if (attribute.nla_type == UNIX_DIAG_NAME) {
        name = value;
      } else if (attribute.nla_type == UNIX_DIAG_PEER && value.size() == sizeof(peer)) {
        std::memcpy(&peer, value.data(), sizeof(peer));
      }
      entry.remove_prefix(std::min(aligned(attribute.nla_len), entry.size()));
    }
    each(message, name, peer);
  });
}

os::UniqueFd open_diag() {
  return os::UniqueFd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
}

std::uint16_t port_of(const sockaddr_storage& address) {
  sockaddr_in6 inet6;
  sockaddr_in inet;
  if (address.ss_family == AF_INET6) {
    std::memcpy(&inet6, &address, sizeof(inet6));
    return ntohs(inet6.sin6_port);
  }
  std::memcpy(&inet, &address, sizeof(inet));
  return ntohs(inet.sin_port);
}

}  // namespace

std::optional<std::set<std::uint64_t>> connections_of(const std::vector<Shared>& shared) {
  std::set<std::uint16_t> ports;
  std::set<std::string> names;
  for (const Shared& each : shared) {
    if (each.datagram) {
      continue;
    }
    if (each.address.kind == Kind::kInet || each.address.kind == Kind::kInet6) {
      ports.insert(each.address.port);
    } else if (each.address.kind == Kind::kPath) {
      // The kernel tells the name with what ended it, or without.
      names.insert(each.address.path);
      names.insert(each.address.path + '\0');
    } else if (each.address.kind == Kind::kAbstract) {
      names.insert('\0' + each.address.path);
    }
  }
  std::set<std::uint64_t> found;
  const os::UniqueFd netlink = open_diag();
  if (!netlink) {
    return std::nullopt;
  }
  const auto add_tcp = [&](const inet_diag_msg& message) {
    if (message.idiag_inode != 0 && ports.contains(ntohs(message.id.idiag_sport))) {
      found.insert(message.idiag_inode);
    }
  };
  // An accepted socket has its listener's name.
  const auto add_unix = [&](const unix_diag_msg& message, std::string_view name, std::uint32_t) {
    if (message.udiag_state == TCP_ESTABLISHED && names.contains(std::string(name))) {
      found.insert(message.udiag_ino);
    }
  };
  if (!ports.empty() &&
      (!list_tcp(netlink.get(), AF_INET, add_tcp) || !list_tcp(netlink.get(), AF_INET6, add_tcp))) {
    return std::nullopt;
  }
  if (!names.empty() && !list_unix(netlink.get(), add_unix)) {
    return std::nullopt;
  }
  return found;
}

std::optional<std::uint64_t> other_end(int socket) {
  sockaddr_storage own{};
  sockaddr_storage peer{};
  socklen_t length = sizeof(own);
  const os::UniqueFd netlink = open_diag();
  if (!netlink || getsockname(socket, reinterpret_cast<sockaddr*>(&own), &length) != 0) {
    return std::nullopt;
  }
  std::uint64_t found = 0;
  if (own.ss_family == AF_UNIX) {
    struct stat status {};
    fstat(socket, &status);
    const bool listed = list_unix(
        netlink.get(), [&](const unix_diag_msg& message, std::string_view, std::uint32_t other) {
          if (other == status.st_ino) {
            found = message.udiag_ino;
          }
        });
    return listed ? std::optional(found) : std::nullopt;
  }
  length = sizeof(peer);
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &length) != 0) {
    return std::nullopt;
  }
  const auto look = [&](const inet_diag_msg& message) {
    if (ntohs(message.id.idiag_sport) == port_of(peer) &&
        ntohs(message.id.idiag_dport) == port_of(own)) {
      found = message.idiag_inode;
    }
  };
  // An IPv4 client may be on a socket of both.
  if (!list_tcp(netlink.get(), AF_INET, look) || !list_tcp(netlink.get(), AF_INET6, look)) {
    return std::nullopt;
  }
  return found;
}

}  // namespace einhorn::intercept
