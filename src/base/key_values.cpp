#include "base/key_values.h"

#include <algorithm>

namespace einhorn {

KeyValues key_values(std::string_view text) {
  KeyValues lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (const std::size_t equals = line.find('='); equals != std::string_view::npos) {
      lines.emplace_back(line.substr(0, equals), line.substr(equals + 1));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string_view value_of(const KeyValues& lines, std::string_view key) {
  for (const auto& [name, value] : lines) {
    if (name == key) {
      return value;
    }
  }
  return {};
}

}  // namespace einhorn
