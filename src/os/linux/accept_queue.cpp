// How many connections wait in a listening socket: TCP_INFO for TCP, sock_diag for unix sockets,
// whose queue no socket option tells.
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "os/linux/linux_kernel.h"
#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::os {
namespace {

template <typename T>
std::optional<T> option_of(int fd, int level, int name) {
  T value{};
  socklen_t size = sizeof value;
  return getsockopt(fd, level, name, &value, &size) == 0 ? std::optional<T>(value) : std::nullopt;
}

std::optional<AcceptQueue> tcp_queue(int listener) {
  const auto info = option_of<tcp_info>(listener, IPPROTO_TCP, TCP_INFO);
  if (!info) {
    return std::nullopt;
  }
  // Of a listening socket these two mean something else than their names.
  return AcceptQueue{info->tcpi_unacked, info->tcpi_sacked};
}

// One request, one answer: the kernel's are there when send returns.
std::optional<AcceptQueue> unix_queue(int listener) {
  struct stat status {};
  const UniqueFd diag(
      socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG));
  if (!diag || fstat(listener, &status) != 0) {
    return std::nullopt;
  }
  struct {
    nlmsghdr head;
    unix_diag_req body;
  } request{};
  request.head.nlmsg_len = sizeof request;
  request.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.head.nlmsg_flags = NLM_F_REQUEST;
  request.body.sdiag_family = AF_UNIX;
  request.body.udiag_states = ~0U;
  request.body.udiag_ino = static_cast<std::uint32_t>(status.st_ino);
  request.body.udiag_show = UDIAG_SHOW_RQLEN;
  request.body.udiag_cookie[0] = ~0U;
  request.body.udiag_cookie[1] = ~0U;
  if (retry([&] { return send(diag.get(), &request, sizeof request, MSG_NOSIGNAL); }) < 0) {
    return std::nullopt;
  }
  alignas(nlmsghdr) std::array<char, 1024> answer{};
  const ssize_t count =
      retry([&] { return recv(diag.get(), answer.data(), answer.size(), MSG_DONTWAIT); });
  constexpr std::size_t kBody = NLMSG_LENGTH(sizeof(unix_diag_msg));
  nlmsghdr head{};
  if (count < static_cast<ssize_t>(kBody)) {
    return std::nullopt;
  }
  std::memcpy(&head, answer.data(), sizeof head);
  if (head.nlmsg_type != SOCK_DIAG_BY_FAMILY) {
    return std::nullopt;
  }
  const auto total = std::min<std::size_t>(head.nlmsg_len, static_cast<std::size_t>(count));
  for (std::size_t at = NLMSG_ALIGN(kBody); at + sizeof(nlattr) <= total;) {
    nlattr attribute{};
    std::memcpy(&attribute, &answer[at], sizeof attribute);
    const std::size_t length = attribute.nla_len;
    unix_diag_rqlen lengths{};
    if (length < sizeof attribute || at + length > total) {
      break;
    }
    if (attribute.nla_type == UNIX_DIAG_RQLEN && length >= sizeof attribute + sizeof lengths) {
      std::memcpy(&lengths, &answer[at + sizeof attribute], sizeof lengths);
      return AcceptQueue{lengths.udiag_rqueue, lengths.udiag_wqueue};
    }
    at += NLMSG_ALIGN(length);
  }
  return std::nullopt;
}

}  // namespace

std::optional<AcceptQueue> LinuxKernel::accept_queue(int listener) {
  if (option_of<int>(listener, SOL_SOCKET, SO_ACCEPTCONN).value_or(0) == 0) {
    return std::nullopt;
  }
  const int domain = option_of<int>(listener, SOL_SOCKET, SO_DOMAIN).value_or(AF_UNSPEC);
  if (domain == AF_UNIX) {
    return unix_queue(listener);
  }
  const int protocol = option_of<int>(listener, SOL_SOCKET, SO_PROTOCOL).value_or(0);
  return protocol == IPPROTO_TCP ? tcp_queue(listener) : std::nullopt;
}

}  // namespace einhorn::os
