#include "guard/renewal.h"

#include <algorithm>

#include "base/numbers.h"

namespace einhorn::guard {
namespace {

std::vector<std::vector<std::string_view>> words_of_lines(std::string_view text) {
  std::vector<std::vector<std::string_view>> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    std::vector<std::string_view> words;
    while (!line.empty()) {
      const std::size_t space = std::min(line.find(' '), line.size());
      words.push_back(line.substr(0, space));
      line.remove_prefix(std::min(space + 1, line.size()));
    }
    if (!words.empty()) {
      lines.push_back(std::move(words));
    }
  }
  return lines;
}

int number(std::string_view word) { return take_number<int>(word).value_or(-1); }

}  // namespace

Renewal parse_renewal(std::string_view text) {
  Renewal renewal;
  for (const std::vector<std::string_view>& words : words_of_lines(text)) {
    if (words[0] == "master" && words.size() == 3) {
      renewal.master = number(words[1]);
      renewal.control = number(words[2]);
    } else if (words[0] == "how" && words.size() == 2) {
      renewal.how = number(words[1]);
    } else if (words[0] == "signals" && words.size() == 2) {
      renewal.signals = number_of<decltype(renewal.signals)>(words[1]);
    } else if (words[0] == "fd" && words.size() == 3) {
      renewal.fds.emplace_back(words[2], number(words[1]));
    }
  }
  return renewal;
}

}  // namespace einhorn::guard
