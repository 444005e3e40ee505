#include "shell/completion.h"

#include <algorithm>
#include <utility>

#include "base/signals.h"

namespace einhorn::shell {

namespace {

constexpr std::string_view kSpace = " \t";

// Whether a word is drawn as it is and needs no quoting.
bool is_command_name(std::string_view word) {
  return !word.empty() && std::all_of(word.begin(), word.end(), [](char character) {
    return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
           (character >= '0' && character <= '9') || character == '_' || character == '-' ||
           character == ':' || character == '.';
  });
}

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& character : result) {
    if (character >= 'a' && character <= 'z') {
      character = static_cast<char>(character - 'a' + 'A');
    }
  }
  return result;
}

std::vector<std::string> matching(const std::vector<std::string>& words, std::string_view start) {
  std::vector<std::string> found;
  for (const std::string& word : words) {
    if (word.starts_with(start)) {
      found.push_back(word);
    }
  }
  return found;
}

std::vector<std::string> matching_signals(std::string_view start) {
  const std::string wanted = upper(start);
  std::vector<std::string> names;
  std::vector<std::string> long_names;
  for (const std::string_view name : signal_names()) {
    names.emplace_back(name);
    long_names.push_back("SIG" + std::string(name));
  }
  std::vector<std::string> found = matching(names, wanted);
  return found.empty() ? matching(long_names, wanted) : found;
}

std::vector<std::string> matching_arguments(std::string_view command, std::size_t position,
                                            std::string_view start) {
  if (command == "signal" || (command == "die" && position == 1)) {
    return matching_signals(start);
  }
  if (command == "state" && position == 1) {
    return matching({"json"}, start);
  }
  if (command == "history" && position == 1) {
    return matching({"crashes", "events", "upgrades"}, start);
  }
  if (command == "history") {
    return matching({"--limit", "--since"}, start);
  }
  if ((command == "upgrade" || command == "upgrade_fleet") && position == 1) {
    return matching({"--no-rollback"}, start);
  }
  return {};
}

std::string common_start(const std::vector<std::string>& words) {
  std::string common = words.empty() ? "" : words.front();
  for (const std::string& word : words) {
    const auto end = std::mismatch(common.begin(), common.end(), word.begin(), word.end()).first;
    common.erase(end, common.end());
  }
  return common;
}

}  // namespace

CommandCatalog CommandCatalog::from_help(std::string_view help) {
  CommandCatalog catalog;
  while (!help.empty()) {
    const std::size_t end = std::min(help.find('\n'), help.size());
    const std::string_view line = help.substr(0, end);
    const std::size_t colon = line.find(": ");
    if (colon != std::string_view::npos && is_command_name(line.substr(0, colon))) {
      catalog.names_.emplace_back(line.substr(0, colon));
    }
    help.remove_prefix(std::min(end + 1, help.size()));
  }
  std::sort(catalog.names_.begin(), catalog.names_.end());
  catalog.names_.erase(std::unique(catalog.names_.begin(), catalog.names_.end()),
                       catalog.names_.end());
  return catalog;
}

Completion complete(std::string_view before_cursor, const CommandCatalog& catalog) {
  // npos + 1 is 0: no `;` before the cursor.
  std::string_view line = before_cursor.substr(before_cursor.rfind(';') + 1);
  std::vector<std::string_view> words;  // the complete ones, then the one in question
  while (true) {
    line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
    const std::size_t end = line.find_first_of(kSpace);
    words.push_back(line.substr(0, end));
    if (end == std::string_view::npos) {
      break;
    }
    line.remove_prefix(end);
  }
  const std::string_view word = words.back();
  Completion completion;
  completion.replaced = word.size();
  completion.candidates = words.size() == 1
                              ? matching(catalog.names(), word)
                              : matching_arguments(words.front(), words.size() - 1, word);
  std::sort(completion.candidates.begin(), completion.candidates.end());
  completion.common = common_start(completion.candidates);
  return completion;
}

}  // namespace einhorn::shell
