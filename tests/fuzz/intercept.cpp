// What an intercepted program makes the supervisor read: the address of its bind, the question of
// the library in it, and what /proc says of its epoll sets. The first byte says which.
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"
#include "intercept/address.h"
#include "intercept/door.h"
#include "intercept/processes.h"
#include "intercept/rules.h"

namespace einhorn::fuzz {
namespace {

using intercept::SocketAddress;
using Kind = SocketAddress::Kind;

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

void check_address(const SocketAddress& address) {
  const std::string encoded = intercept::encode_address(address);
  holds(encoded.size() <= intercept::kMaxAddressBytes, "an address fits where addresses go");
  holds(encoded.empty() == (address.kind == Kind::kOther), "what can be shared can be bound");
  if (address.kind != Kind::kOther) {
    holds(intercept::decode_address(bytes_of(encoded)) == address, "an address is read again",
          intercept::format(address));
  }
  if (address.kind == Kind::kPath) {
    holds(address.path.find('\0') == std::string::npos, "a path ends at its first zero");
  }
  // Nothing is shared under an address that was not asked for.
  intercept::Shared web;
  web.address.kind = Kind::kInet;
  web.address.ip = {127, 0, 0, 1};
  web.address.port = 3000;
  intercept::Wanted wanted;
  wanted.inet6 = address.kind == Kind::kInet6;
  wanted.address = address;
  const intercept::Decision decision = intercept::decide(wanted, {web}, {});
  const bool inet = address.kind == Kind::kInet || address.kind == Kind::kInet6;
  holds(decision.kind == intercept::Decision::Kind::kUnmanaged || (inet && address.port == 3000),
        "another port is none of ours");
  static_cast<void>(intercept::format(address));
}

void check_question(std::string_view input) {
  const std::optional<intercept::AskedBy> asked = intercept::parse_question(bytes_of(input));
  if (!asked) {
    return;
  }
  holds(asked->token.size() == interposed::kTokenBytes, "a token has its length");
  holds(asked->token.data() >= input.data() &&
            asked->token.data() + asked->token.size() <= input.data() + input.size(),
        "a token lies within what was read");
  holds(asked->fd >= 0, "a descriptor has a number");
  check_address(asked->address);
}

void check_epoll(std::string_view input) {
  for (const intercept::EpollEntry& entry : intercept::parse_epoll_entries(std::string(input))) {
    holds(entry.epoll == -1, "whose set it is, is said by who reads it");
    holds(input.find("tfd:") != std::string_view::npos, "an entry was there");
  }
}

}  // namespace

void run(std::string_view input) {
  Choices choices(input);
  switch (choices.below(2)) {
    case 0:
      check_address(intercept::decode_address(bytes_of(choices.rest())));
      return;
    case 1:
      check_question(choices.rest());
      return;
    default:
      check_epoll(choices.rest());
  }
}

}  // namespace einhorn::fuzz
