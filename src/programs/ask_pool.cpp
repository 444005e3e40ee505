#include "programs/ask_pool.h"

#include <chrono>
#include <string_view>

#include "client/connection.h"
#include "client/deadline.h"
#include "wire/json.h"

namespace einhorn {
namespace {

constexpr auto kPatience = std::chrono::seconds{5};

std::int64_t integer(const wire::Value& state, std::string_view key) {
  const wire::Value* found = state.find(key);
  return found != nullptr && found->as_integer() != nullptr ? *found->as_integer() : -1;
}

}  // namespace

std::optional<PoolState> ask_pool(const std::string& socket_path) {
  const client::Deadline deadline = client::Deadline::after(kPatience);
  Result<client::Connection> connection = client::Connection::open(socket_path, deadline);
  if (!connection || !connection->send({1, "state", std::vector<std::string>{"json"}}, deadline)) {
    return std::nullopt;
  }
  const Result<wire::Reply> reply = connection->receive(deadline);
  if (!reply) {
    return std::nullopt;
  }
  const Result<wire::Value> state = wire::parse_json(reply->message, {16, 4u << 20u, 1u << 20u});
  if (!state) {
    return std::nullopt;
  }
  return PoolState{integer(*state, "guard"), integer(*state, "ready"), integer(*state, "number"),
                   integer(*state, "deaths_before_ack")};
}

}  // namespace einhorn
