// What a master hears of its guard: messages of any bytes with any number of descriptors, and the
// end of the line. Every descriptor is handed on or closed, once.
#include "master/guard_link.h"

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "fuzz.h"
#include "stub_kernel.h"

namespace einhorn::fuzz {
namespace {

constexpr int kSocket = 3;

// Receives what the input says, and knows which descriptors are open.
class ScriptedKernel final : public StubKernel {
 public:
  explicit ScriptedKernel(std::string_view input) : choices_(input) {}

  os::Message receive(int socket) override {
    holds(socket == kSocket, "only the socket is read");
    os::Message message;
    if (choices_.empty()) {
      message.kind = os::Transfer::Kind::kClosed;
      return message;
    }
    for (int count = choices_.below(4); count > 0; --count) {
      message.fds.push_back(next_++);
      open_.insert(message.fds.back());
    }
    message.text = choices_.text(choices_.byte());
    received_ += message.text.size();
    return message;
  }
  // It takes nothing.
  os::Transfer send(int /*socket*/, std::string_view /*text*/,
                    std::span<const int> /*fds*/) override {
    return {os::Transfer::Kind::kWouldBlock, 0};
  }
  void close(int fd) override {
    holds(fd == kSocket ? !std::exchange(closed_, true) : open_.erase(fd) == 1,
          "what is closed is open");
  }

  [[nodiscard]] std::size_t open() const { return open_.size(); }
  [[nodiscard]] std::size_t received() const { return received_; }

 private:
  Choices choices_;
  int next_ = 10;
  std::set<int> open_;
  std::size_t received_ = 0;
  bool closed_ = false;
};

}  // namespace

void run(std::string_view input) {
  ScriptedKernel kernel(input);
  master::GuardLink link(kernel, kSocket);
  link.hello();
  holds(link.blocked(), "what could not be sent is waited for");
  bool gone = false;
  while (const std::optional<master::GuardSays> said = link.next()) {
    holds(!gone, "nothing is said after the end");
    if (const auto* kept = std::get_if<master::Kept>(&*said)) {
      for (const auto& [name, fd] : kept->fds) {
        holds(name.size() <= kernel.received(), "names come out of the message");
        kernel.close(fd);
      }
    }
    holds(kernel.open() == 0, "no descriptor is forgotten");
    gone = std::holds_alternative<master::GuardGone>(*said);
  }
  holds(gone && link.socket() < 0, "the end is noticed");
  holds(!link.blocked(), "nothing is waited for that a guard that is gone was to hear");
}

}  // namespace einhorn::fuzz
