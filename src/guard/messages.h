// Small pieces that guard's parts share: reading messages, units of time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "base/numbers.h"

namespace einhorn::guard {

inline constexpr std::int64_t kSecond = 1'000'000'000;
inline constexpr std::int64_t kMillisecond = 1'000'000;

// The value of `key` in lines of KEY=VALUE; empty data() if there is none.
inline std::string_view value_of(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == '=') {
      return line.substr(key.size() + 1);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

inline bool to_int(std::string_view text, int* number) {
  const auto found = take_number<int>(text);
  *number = found.value_or(*number);
  return found.has_value();
}

}  // namespace einhorn::guard
