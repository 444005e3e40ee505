#include "os/takeover.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "os/linux/retry.h"

namespace einhorn::os {
namespace {

constexpr int kPatienceMs = 10'000;
constexpr std::size_t kMaxAnswerBytes = 256 * 1024;
constexpr std::string_view kRequest = "{\"command\": \"guard:takeover\", \"id\": 1}\n";
constexpr std::string_view kFds = "X_EINHORN_FDS=1";
constexpr std::string_view kGo = "X_EINHORN_GO=1";

std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  while (!line.empty()) {
    const std::size_t end = std::min(line.find(' '), line.size());
    words.emplace_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

// Reads what is there; false at the end of the stream.
bool receive(int socket, std::string& text, std::vector<UniqueFd>& fds) {
  std::array<char, 4096> buffer;
  iovec part{buffer.data(), buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 253)> control;
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t count = retry([&] { return ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC); });
  if (count <= 0) {
    return false;
  }
  for (cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr;
       rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
      const std::size_t number = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < number; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(rights) + i * sizeof(int), sizeof(int));
        fds.emplace_back(fd);
      }
    }
  }
  text.append(buffer.data(), static_cast<std::size_t>(count));
  return true;
}

}  // namespace

Result<TakenOver> ask_to_take_over(int socket) {
  if (::send(socket, kRequest.data(), kRequest.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(kRequest.size())) {
    return Error{errno, "ask the master for its pool", ""};
  }
  std::string text;
  std::vector<UniqueFd> fds;
  std::vector<std::string> names;
  while (text.size() < kMaxAnswerBytes) {
    pollfd waiting{socket, POLLIN, 0};
    if (retry([&] { return ::poll(&waiting, 1, kPatienceMs); }) != 1) {
      return make_error("ask the master for its pool", "it does not answer");
    }
    if (!receive(socket, text, fds)) {
      return make_error("ask the master for its pool", "it closed the connection");
    }
    std::size_t end = 0;
    while ((end = text.find('\n')) != std::string::npos) {
      const std::string line = text.substr(0, end);
      text.erase(0, end + 1);
      if (line == kGo) {
        if (names.size() != fds.size()) {
          return make_error("take the pool over", "descriptors were lost on the way");
        }
        TakenOver taken;
        for (std::size_t i = 0; i < names.size(); ++i) {
          taken.descriptors.emplace_back(names[i], std::move(fds[i]));
        }
        return taken;
      }
      std::vector<std::string> words = words_of(line);
      if (words.empty() || words[0] != kFds) {
        TakenOver refused;
        refused.refusal = line;
        return refused;
      }
      names.insert(names.end(), words.begin() + 1, words.end());
    }
  }
  return make_error("ask the master for its pool", "its answer has no end");
}

}  // namespace einhorn::os
