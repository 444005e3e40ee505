#include "intercept/reports.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "os/linux/retry.h"

namespace einhorn::intercept {
namespace {

constexpr std::size_t kMostWaiting = 4096;

}  // namespace

void Reports::listening(Epoch worker, std::uint32_t shared) {
  send("LISTENING=" + std::to_string(worker.value) + "\nshared=" + std::to_string(shared), -1);
}

void Reports::probed(Epoch worker) { send("PROBED=" + std::to_string(worker.value), -1); }

void Reports::drained(Epoch worker) { send("DRAINED=" + std::to_string(worker.value), -1); }

void Reports::gone(Epoch worker) { send("GONE=" + std::to_string(worker.value), -1); }

void Reports::form(std::uint32_t shared, std::uint32_t number, int fd) {
  send("FORM=" + std::to_string(shared) + "\nnumber=" + std::to_string(number), fd);
}

void Reports::say(const char* level, std::string_view event, const std::string& text) {
  send("SAY=" + std::string(level) + "\nevent=" + std::string(event) + "\ntext=" + text, -1);
}

bool Reports::try_send(const Waiting& message) const {
  iovec part{const_cast<char*>(message.text.data()), message.text.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (message.fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &message.fd, sizeof(int));
  }
  const auto sent =
      os::retry([&] { return sendmsg(socket_, &header, MSG_NOSIGNAL | MSG_DONTWAIT); });
  return sent >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != ETOOMANYREFS);
}

void Reports::send(std::string text, int fd) {
  const std::lock_guard lock(mutex_);
  Waiting message{std::move(text), fd};
  if (waiting_.empty() && try_send(message)) {
    return;
  }
  if (waiting_.size() < kMostWaiting || fd >= 0) {
    waiting_.push_back(std::move(message));
  }
}

bool Reports::waiting() {
  const std::lock_guard lock(mutex_);
  return !waiting_.empty();
}

void Reports::flush() {
  const std::lock_guard lock(mutex_);
  while (!waiting_.empty() && try_send(waiting_.front())) {
    waiting_.pop_front();
  }
}

}  // namespace einhorn::intercept
