// What a pool says of itself, for programs that look after it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace einhorn {

struct PoolState {
  std::int64_t guard = -1;  // its pid; -1: there is none
  std::int64_t ready = -1;
  std::int64_t number = -1;
  std::int64_t deaths_before_ack = -1;
};

// None: nobody who is to be believed answers at that command socket in time.
[[nodiscard]] std::optional<PoolState> ask_pool(const std::string& socket_path);

}  // namespace einhorn
