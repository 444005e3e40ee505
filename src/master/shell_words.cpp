#include "master/shell_words.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kSpace = " \t\r\n\v\f";
constexpr std::string_view kQuotedByBackslash = "$`\"\\\n";

// Appends what stands between the quote at `at` and its end, which it returns; npos: it never ends.
std::size_t take_quoted(std::string_view line, std::size_t at, std::string& word) {
  const char quote = line[at];
  for (++at; at < line.size() && line[at] != quote; ++at) {
    const bool escapes = quote == '"' && line[at] == '\\' && at + 1 < line.size() &&
                         kQuotedByBackslash.find(line[at + 1]) != std::string_view::npos;
    if (escapes) {
      ++at;
    }
    word += line[at];
  }
  return at < line.size() ? at : std::string_view::npos;
}

}  // namespace

Result<std::vector<std::string>> split_shell_words(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  for (std::size_t at = 0; at < line.size(); ++at) {
    const char c = line[at];
    if (kSpace.find(c) != std::string_view::npos) {
      if (in_word) {
        words.push_back(std::move(word));
      }
      word.clear();
      in_word = false;
      continue;
    }
    in_word = true;
    if (c == '\'' || c == '"') {
      at = take_quoted(line, at, word);
      if (at == std::string_view::npos) {
        return make_error("", std::string("has an unbalanced ") + c);
      }
    } else if (c == '\\') {
      if (++at == line.size()) {
        return make_error("", "ends in a backslash");
      }
      word += line[at];
    } else {
      word += c;
    }
  }
  if (in_word) {
    words.push_back(std::move(word));
  }
  return words;
}

}  // namespace einhorn::master
