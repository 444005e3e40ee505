// Messages between our own processes: lines of KEY=VALUE. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace einhorn {

// In their order; what has no `=` is left out. The views are into the text.
using KeyValues = std::vector<std::pair<std::string_view, std::string_view>>;
[[nodiscard]] KeyValues key_values(std::string_view text);
// The first one's value; "" if there is none.
[[nodiscard]] std::string_view value_of(const KeyValues& lines, std::string_view key);

}  // namespace einhorn
