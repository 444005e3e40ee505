#include "shell/words.h"

#include <utility>

#include "shell/output.h"

namespace einhorn::shell {

namespace {

constexpr std::string_view kSpace = " \t\n\v\f\r";

bool is_space(char character) { return kSpace.find(character) != std::string_view::npos; }

// Takes the words of one line from its front.
class WordReader {
 public:
  explicit WordReader(std::string_view line) : line_(line) {}

  // False at the end of the line. Errors as `split_words`.
  Result<bool> next(std::string& word) {
    while (position_ < line_.size() && is_space(line_[position_])) {
      ++position_;
    }
    if (position_ == line_.size()) {
      return false;
    }
    word.clear();
    while (position_ < line_.size() && !is_space(line_[position_])) {
      if (Status status = take_piece(word); !status) {
        return std::move(status).error();
      }
    }
    return true;
  }

 private:
  Error unmatched() const {
    return make_error("unmatched quote", escape_controls(line_, Newlines::kEscaped));
  }

  Status take_piece(std::string& word) {
    const char first = line_[position_];
    switch (first) {
      case '\'':
        return take_single(word);
      case '"':
        return take_double(word);
      case '\\':
        take_backslash(word);
        return Ok{};
      default:
        word += first;
        ++position_;
        return Ok{};
    }
  }

  Status take_single(std::string& word) {
    const std::size_t end = line_.find('\'', position_ + 1);
    if (end == std::string_view::npos) {
      return unmatched();
    }
    word += line_.substr(position_ + 1, end - position_ - 1);
    position_ = end + 1;
    return Ok{};
  }

  // Within double quotes a backslash is special only before the characters that it can protect.
  Status take_double(std::string& word) {
    for (std::size_t at = position_ + 1; at < line_.size(); ++at) {
      char character = line_[at];
      if (character == '"') {
        position_ = at + 1;
        return Ok{};
      }
      if (character == '\\' && at + 1 < line_.size()) {
        const char protected_one = line_[++at];
        if (std::string_view("$`\"\\\n").find(protected_one) == std::string_view::npos) {
          word += character;
        }
        character = protected_one;
      }
      word += character;
    }
    return unmatched();
  }

  // A backslash before a newline or at the very end stands for itself.
  void take_backslash(std::string& word) {
    ++position_;
    if (position_ == line_.size() || line_[position_] == '\n') {
      word += '\\';
    }
    if (position_ < line_.size()) {
      word += line_[position_++];
    }
  }

  std::string_view line_;
  std::size_t position_ = 0;
};

}  // namespace

Result<std::vector<std::string>> split_words(std::string_view line) {
  if (line.find('\0') != std::string_view::npos) {
    return make_error("a command", "it contains a NUL byte");
  }
  std::vector<std::string> words;
  WordReader reader(line);
  std::string word;
  while (true) {
    Result<bool> more = reader.next(word);
    if (!more) {
      return std::move(more).error();
    }
    if (!*more) {
      return words;
    }
    words.push_back(word);
  }
}

Result<std::vector<CommandLine>> parse_sequence(std::string_view text) {
  std::vector<CommandLine> commands;
  while (true) {
    const std::size_t end = text.find(';');
    Result<std::vector<std::string>> words = split_words(text.substr(0, end));
    if (!words) {
      return std::move(words).error();
    }
    if (!words->empty()) {
      CommandLine line;
      line.command = std::move(words->front());
      words->erase(words->begin());
      line.args = *std::move(words);
      commands.push_back(std::move(line));
    }
    if (end == std::string_view::npos) {
      return commands;
    }
    text.remove_prefix(end + 1);
  }
}

}  // namespace einhorn::shell
