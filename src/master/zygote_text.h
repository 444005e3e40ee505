// What both files of Zygotes use.
#pragma once

#include <array>
#include <cstdio>
#include <string>
#include <string_view>

#include "base/instant.h"

namespace einhorn::master::zygote {

inline constexpr std::string_view kNamePrefix = "zygote:";
inline constexpr Duration kForkPatience = std::chrono::seconds{10};
// A zygote that has lived so long is replaced at once.
inline constexpr Duration kLived = std::chrono::seconds{1};

inline std::string seconds(Duration duration) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3g s", to_seconds(duration));
  return text.data();
}

}  // namespace einhorn::master::zygote
