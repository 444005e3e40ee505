#include "master/guard_link.h"

#include "base/numbers.h"

namespace einhorn::master {
namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) {
      lines.push_back(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::vector<int> numbers_of(std::string_view text) {
  std::vector<int> numbers;
  while (const auto number = take_number<int>(text)) {
    numbers.push_back(*number);
    if (text.starts_with(' ')) {
      text.remove_prefix(1);
    }
  }
  return numbers;
}

constexpr std::string_view kFds = "X_EINHORN_FDS=1";
constexpr std::string_view kGo = "X_EINHORN_GO=1";
constexpr std::string_view kGoSuccessor = "X_EINHORN_GO=2";
constexpr std::string_view kManager = "X_EINHORN_MANAGER=";
constexpr std::string_view kFreeze = "X_EINHORN_FREEZE=1";
constexpr std::string_view kThaw = "X_EINHORN_THAW=1";
constexpr std::string_view kLeave = "X_EINHORN_LEAVE=1";
constexpr std::string_view kExited = "X_EINHORN_EXITED=";
constexpr std::string_view kSignal = "X_EINHORN_SIGNAL=";

}  // namespace

GuardLink::~GuardLink() { close(); }

void GuardLink::close() {
  if (socket_ >= 0) {
    kernel_.unwatch(socket_);
    kernel_.close(socket_);
    socket_ = -1;
  }
  unsent_.clear();  // nobody is there to hear it, and nothing waits for that
}

std::optional<GuardSays> GuardLink::next() {
  while (socket_ >= 0) {
    os::Message message = kernel_.receive(socket_);
    if (message.kind == os::Transfer::Kind::kWouldBlock) {
      return std::nullopt;
    }
    if (message.kind == os::Transfer::Kind::kClosed) {
      close();
      return GuardGone{};
    }
    const std::vector<std::string_view> lines = lines_of(message.text);
    if (!lines.empty() && lines[0] == kFds) {
      Kept kept;
      for (std::size_t i = 0; i < message.fds.size(); ++i) {
        kept.fds.emplace_back(i + 1 < lines.size() ? std::string(lines[i + 1]) : "",
                              message.fds[i]);
      }
      return kept;
    }
    for (const int fd : message.fds) {
      kernel_.close(fd);
    }
    if (lines.empty()) {
      continue;
    }
    if (lines[0] == kGo || lines[0] == kGoSuccessor) {
      Go go{lines[0] == kGoSuccessor, std::nullopt};
      if (lines.size() > 1 && lines[1].starts_with(kManager)) {
        go.manager = number_of<Pid>(lines[1].substr(kManager.size()));
      }
      return go;
    }
    if (lines[0] == kFreeze) {
      return Freeze{};
    }
    if (lines[0] == kThaw) {
      return Thaw{};
    }
    if (lines[0] == kLeave) {
      return LeaveNow{};
    }
    if (lines[0].starts_with(kExited)) {
      const std::vector<int> numbers = numbers_of(lines[0].substr(kExited.size()));
      if (numbers.size() == 3) {
        return ChildEnded{numbers[0], {numbers[1], numbers[2]}};
      }
    }
    if (lines[0].starts_with(kSignal)) {
      const std::vector<int> numbers = numbers_of(lines[0].substr(kSignal.size()));
      if (numbers.size() == 1) {
        return GuardSignal{numbers[0]};
      }
    }
  }
  return std::nullopt;
}

void GuardLink::say(std::string text, int fd) {
  if (socket_ < 0) {
    return;
  }
  unsent_.push_back({std::move(text), fd});
  flush();
}

void GuardLink::flush() {
  std::size_t sent = 0;
  while (sent < unsent_.size() && socket_ >= 0) {
    const Unsent& next = unsent_[sent];
    const os::Transfer transfer =
        kernel_.send(socket_, next.text, next.fd >= 0 ? std::span(&next.fd, 1) : std::span<int>());
    if (transfer.kind == os::Transfer::Kind::kWouldBlock) {
      break;
    }
    ++sent;  // done, or the guard is gone, which next() will notice
  }
  unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(sent));
}

void GuardLink::hello() { say("X_EINHORN_HELLO=1"); }

void GuardLink::succeed(Pid successor, int control) {
  say("X_EINHORN_SUCCESSOR=" + std::to_string(successor), control);
}

void GuardLink::frozen() { say("X_EINHORN_FROZEN=1"); }

void GuardLink::ready() { say("READY=1"); }

// A descriptor that is kept anew or forgotten may be closed by now: its message must not go out.
void GuardLink::drop_unsent(std::string_view name) {
  const std::string text = "FDSTORE=1\nFDNAME=" + std::string(name);
  std::erase_if(unsent_, [&text](const Unsent& unsent) { return unsent.text == text; });
}

void GuardLink::keep(std::string_view name, int fd) {
  drop_unsent(name);
  say("FDSTORE=1\nFDNAME=" + std::string(name), fd);
}

void GuardLink::forget(std::string_view name) {
  drop_unsent(name);
  say("FDSTOREREMOVE=1\nFDNAME=" + std::string(name));
}

void GuardLink::signal_done(int signal) { say("X_EINHORN_SIGNALED=" + std::to_string(signal)); }

void GuardLink::ask_for(Pid pid) { say("X_EINHORN_REAP=" + std::to_string(pid)); }

void GuardLink::renew(int program, int how) {
  say("X_EINHORN_RENEW=" + std::to_string(how), program);
}

void GuardLink::tell_manager(std::string_view text, int fd) {
  say("X_EINHORN_TELL=1\n" + std::string(text), fd);
}

void GuardLink::leave_with(int exit_status) { say("EXIT_STATUS=" + std::to_string(exit_status)); }

}  // namespace einhorn::master
