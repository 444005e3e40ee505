// A client with a hostile master: whatever comes, in whatever pieces, it gets replies and then an
// error, and never more replies than lines.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "client/connection.h"
#include "fuzz.h"
#include "os/unique_fd.h"

namespace einhorn::fuzz {
namespace {

// Takes connections under a name of its own that no file stands for.
class Master {
 public:
  Master() : name_("einhorn-fuzz-" + std::to_string(getpid())) {
    name_.insert(0, 1, '\0');
    listener_ = os::UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name_.data(), name_.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size());
    holds(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0 &&
              listen(listener_.get(), 1) == 0,
          "there is a socket to listen on");
  }

  std::pair<client::Connection, os::UniqueFd> connect() {
    Result<client::Connection> connection =
        client::Connection::open(name_, client::Deadline::never());
    holds(connection.has_value(), "a client can connect");
    os::UniqueFd other(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    holds(static_cast<bool>(other), "a client is accepted");
    return {*std::move(connection), std::move(other)};
  }

 private:
  std::string name_;
  os::UniqueFd listener_;
};

}  // namespace

void run(std::string_view input) {
  Master master;
  auto [connection, other] = master.connect();
  Choices choices(input);
  const client::Deadline at_once = client::Deadline::after(Duration::zero());
  auto lines = static_cast<std::size_t>(std::count(input.begin(), input.end(), '\n'));
  const auto take = [&lines, &at_once](client::Connection& from) {
    Result<wire::Reply> reply = from.receive(at_once);
    if (!reply) {
      holds_for_people(reply.error().message());
    } else {
      holds(lines-- > 0, "there are no more replies than lines");
    }
    return reply;
  };
  bool usable = true;
  while (!choices.empty() && usable) {
    const std::size_t bytes = std::size_t{1} + choices.byte() * std::size_t{4};
    const std::string_view piece = choices.text(bytes);
    holds(send(other.get(), piece.data(), piece.size(), MSG_NOSIGNAL) ==
              static_cast<ssize_t>(piece.size()),
          "the input fits into the socket");
    const Result<bool> waits = connection.wait(at_once);
    holds(waits.has_value(), "waiting is no error");
    usable = take(connection).has_value();
  }
  other.reset();
  const Result<bool> waits = connection.wait(at_once);
  holds(waits.has_value() && *waits, "the end is something to receive");
  while (take(connection)) {
  }
  if (usable && lines == 0) {
    static_cast<void>(connection.is_closed());
  }
}

}  // namespace einhorn::fuzz
