// The values of options: numbers, times, counts, each with the error that names what is allowed.
//
// Internal to the command line (master/option_table.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/instant.h"
#include "base/result.h"

namespace einhorn::master {

inline constexpr std::uint32_t kMostCount = 1'000'000;

// `"x" WHY`, without an operation.
[[nodiscard]] Error wrong(const std::string& value, const std::string& why);

[[nodiscard]] Result<std::int64_t> parse_integer(const std::string& value, std::int64_t least,
                                                 std::int64_t most);

// "a,b" -> "a", "b"
[[nodiscard]] std::vector<std::string> split_list(const std::string& value);

enum class Zero { kAllowed, kRefused };
[[nodiscard]] Result<Duration> parse_seconds(const std::string& value, Zero zero);

// A number of workers, also as an expression (master/expression.h).
[[nodiscard]] Result<std::int64_t> parse_count(const std::string& value);

// Gives the value to `member`, or passes the error on.
template <typename T, typename Member>
Status assign(Result<T> value, Member& member) {
  if (!value) {
    return std::move(value).error();
  }
  member = static_cast<Member>(*value);
  return Ok{};
}

template <typename T, typename Member>
Status assign(Result<T> value, std::optional<Member>& member) {
  if (!value) {
    return std::move(value).error();
  }
  member = static_cast<Member>(*value);
  return Ok{};
}

}  // namespace einhorn::master
