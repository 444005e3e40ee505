// Where lines are folded, what is indented and which style a scalar can keep are libyaml's rules:
// indentation by 2, lists not indented within maps, a fold at the first single space behind column
// 80, never in a key.
#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

#include "wire/text.h"
#include "wire/yaml_spelling.h"
#include "wire/yaml_writers.h"

namespace einhorn::wire {
namespace {

constexpr std::size_t kBestWidth = 80;
constexpr std::size_t kMaxKeyBytes = 128;
constexpr std::size_t kIndent = 2;

bool is_printable(char c) { return c >= ' ' && c <= '~'; }

// What libyaml wants to know of a scalar before it chooses a style.
struct Analysis {
  bool known = true;  // nothing but printable ASCII and newlines
  bool multiline = false;
  bool plain = true;
  bool single_quoted = true;
  bool literal = true;  // as far as its kind goes; some of these are left to libyaml
};

bool is_indicator_in_front(std::string_view text) {
  constexpr std::string_view kIndicators = "#,[]{}&*!|>'\"%@`";
  if (kIndicators.find(text[0]) != std::string_view::npos) {
    return true;
  }
  const bool ends_word = text.size() == 1 || text[1] == ' ' || text[1] == '\n';
  return (text[0] == '-' || text[0] == '?' || text[0] == ':') && ends_word;
}

Analysis analyze(std::string_view text) {
  Analysis result;
  if (text.empty()) {
    result.literal = false;
    return result;
  }
  const auto is_blank = [](char c) { return c == ' ' || c == '\n'; };
  result.plain = !is_indicator_in_front(text) && !text.starts_with("---") &&
                 !text.starts_with("...") && !is_blank(text.front()) && !is_blank(text.back());
  result.literal = text.back() != ' ';
  char before = 'x';
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\n') {
      result.multiline = true;
      result.plain = false;
      if (before == ' ') {
        result.single_quoted = false;
        result.literal = false;
      }
    } else if (!is_printable(c)) {
      result.known = false;
      return result;
    } else if (c == ' ') {
      result.single_quoted = result.single_quoted && before != '\n';
      result.plain = result.plain && before != '\n';
    } else if (c == ':') {
      result.plain = result.plain && at + 1 < text.size() && !is_blank(text[at + 1]);
    } else if (c == '#') {
      result.plain = result.plain && !is_blank(before);
    }
    before = c;
  }
  return result;
}

ScalarStyle choose_style(ScalarStyle style, const Analysis& analysis, bool is_key, bool empty) {
  if (is_key && analysis.multiline) {
    style = ScalarStyle::kDoubleQuoted;
  }
  if (style == ScalarStyle::kPlain && (!analysis.plain || (empty && is_key))) {
    style = ScalarStyle::kSingleQuoted;
  }
  if (style == ScalarStyle::kSingleQuoted && !analysis.single_quoted) {
    style = ScalarStyle::kDoubleQuoted;
  }
  if (style == ScalarStyle::kLiteral && (!analysis.literal || is_key)) {
    style = ScalarStyle::kDoubleQuoted;
  }
  return style;
}

bool is_name(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

class Writer {
 public:
  std::optional<std::string> write_document(const Value& value) {
    const List* list = value.as_list();
    const Map* map = value.as_map();
    if ((list == nullptr || list->empty()) && (map == nullptr || map->empty())) {
      return std::nullopt;
    }
    out_ = "---";
    // As if it were a value in a map: below the line, and a list at the same indentation.
    if (list != nullptr) {
      write_list(*list, 0, false);
    } else {
      write_map(*map, 0, false);
    }
    end_line();
    return possible_ ? std::optional(std::move(out_)) : std::nullopt;
  }

 private:
  enum class Place : std::uint8_t { kKey, kInMap, kInList };

  void visit(const Value& value, std::size_t indent, Place place) {
    if (possible_) {
      std::visit([&](const auto& held) { write(held, indent, place); }, value.storage());
    }
  }

  // `indent` is that of the map or list that the value is in.
  void write(const Null&, std::size_t, Place place) { possible_ = place != Place::kKey; }
  void write(bool value, std::size_t, Place place) { word(value ? "true" : "false", place); }
  void write(std::int64_t value, std::size_t, Place place) {
    char digits[std::numeric_limits<std::int64_t>::digits10 + 3];
    const auto end = std::to_chars(std::begin(digits), std::end(digits), value).ptr;
    word({digits, static_cast<std::size_t>(end - digits)}, place);
  }
  void write(double value, std::size_t, Place place) { word(spell_real(value), place); }
  void write(const std::string& value, std::size_t indent, Place place) {
    const Spelling spelling = spell_string(value);
    if (spelling.style == ScalarStyle::kLiteral && place != Place::kKey && literal(value, indent)) {
      return;
    }
    const Analysis analysis = analyze(value);
    const bool is_key = place == Place::kKey;
    if (!analysis.known || spelling.tag != nullptr ||
        (is_key && (analysis.multiline || value.size() > kMaxKeyBytes))) {
      possible_ = false;
      return;
    }
    switch (choose_style(spelling.style, analysis, is_key, value.empty())) {
      case ScalarStyle::kPlain:
        plain(value, indent, place);
        return;
      case ScalarStyle::kSingleQuoted:
        single_quoted(value, indent, place);
        return;
      case ScalarStyle::kDoubleQuoted:
        double_quoted(value, indent, place);
        return;
      case ScalarStyle::kLiteral:
        possible_ = false;
        return;
    }
  }
  void write(const Symbol& value, std::size_t, Place place) {
    const std::string& name = value.name;
    if (name.empty() || name.size() >= kMaxKeyBytes || !is_name(name)) {
      possible_ = false;
      return;
    }
    begin_scalar(place);
    out_ += ':';
    out_ += name;
  }
  void write(const WallTime& value, std::size_t indent, Place place) {
    plain(spell_time(value), indent, place);
  }
  void write(const List& value, std::size_t indent, Place place) {
    if (place == Place::kKey) {
      possible_ = false;
    } else if (value.empty()) {
      out_ += " []";
    } else {
      write_list(value, place == Place::kInList ? indent + kIndent : indent,
                 place == Place::kInList);
    }
  }
  void write(const Map& value, std::size_t indent, Place place) {
    if (place == Place::kKey) {
      possible_ = false;
    } else if (value.empty()) {
      out_ += " {}";
    } else {
      write_map(value, indent + kIndent, place == Place::kInList);
    }
  }
  void write(const Set& value, std::size_t indent, Place place) {
    if (place == Place::kKey) {
      possible_ = false;
      return;
    }
    out_ += ' ';
    out_ += kSetTag;
    begin_line(indent + kIndent);
    out_ += "hash:";
    if (value.elements.empty()) {
      out_ += " {}";
    }
    for (const Value& element : value.elements) {
      begin_line(indent + 2 * kIndent);
      visit(element, indent, Place::kKey);
      out_ += ": true";
    }
  }

  // With `in_line` the first element follows what is in the line already: `- - 1`.
  void write_list(const List& list, std::size_t indent, bool in_line) {
    for (const Value& element : list) {
      begin_element(indent, in_line);
      out_ += '-';
      visit(element, indent, Place::kInList);
    }
  }
  void write_map(const Map& map, std::size_t indent, bool in_line) {
    for (const auto& [key, member] : map) {
      begin_element(indent, in_line);
      visit(key, indent, Place::kKey);
      out_ += ':';
      visit(member, indent, Place::kInMap);
    }
  }

  void begin_element(std::size_t indent, bool& in_line) {
    if (in_line) {
      out_ += ' ';
    } else {
      begin_line(indent);
    }
    in_line = false;
  }
  void end_line() {
    if (out_.back() != '\n') {
      out_ += '\n';
    }
  }
  void begin_line(std::size_t indent) {
    end_line();
    line_began_ = out_.size();
    out_.append(indent, ' ');
  }
  [[nodiscard]] bool line_is_full() const { return out_.size() - line_began_ > kBestWidth; }
  void begin_scalar(Place place) {
    if (place != Place::kKey) {
      out_ += ' ';
    }
  }

  // Without a space or anything else that has a meaning.
  void word(std::string_view text, Place place) {
    begin_scalar(place);
    out_ += text;
  }

  // In all three, a single space that ends a full line becomes the line's end.
  void plain(std::string_view text, std::size_t indent, Place place) {
    if (text.empty()) {
      return;
    }
    begin_scalar(place);
    for (std::size_t at = 0; at < text.size(); ++at) {
      if (place != Place::kKey && is_single_space(text, at) && line_is_full()) {
        begin_line(indent + kIndent);
      } else {
        out_ += text[at];
      }
    }
  }
  void single_quoted(std::string_view text, std::size_t indent, Place place) {
    begin_scalar(place);
    out_ += '\'';
    for (std::size_t at = 0; at < text.size(); ++at) {
      const bool inner = at > 0 && at + 1 < text.size();
      if (text[at] == '\n') {
        possible_ = false;  // libyaml folds these too
        return;
      }
      if (place != Place::kKey && inner && is_single_space(text, at) && line_is_full()) {
        begin_line(indent + kIndent);
        continue;
      }
      if (text[at] == '\'') {
        out_ += '\'';
      }
      out_ += text[at];
    }
    out_ += '\'';
  }
  // Here a fold may also stand before further spaces, which are then escaped.
  void double_quoted(std::string_view text, std::size_t indent, Place place) {
    begin_scalar(place);
    out_ += '"';
    bool behind_space = false;
    for (std::size_t at = 0; at < text.size(); ++at) {
      const char c = text[at];
      const bool inner = at > 0 && at + 1 < text.size();
      if (place != Place::kKey && c == ' ' && inner && !behind_space && line_is_full()) {
        begin_line(indent + kIndent);
        if (text[at + 1] == ' ') {
          out_ += '\\';
        }
      } else if (c == '\n') {
        out_ += "\\n";
      } else {
        if (c == '"' || c == '\\') {
          out_ += '\\';
        }
        out_ += c;
      }
      behind_space = c == ' ';
    }
    out_ += '"';
  }
  static bool is_single_space(std::string_view text, std::size_t at) {
    return text[at] == ' ' && (at == 0 || text[at - 1] != ' ') &&
           (at + 1 == text.size() || text[at + 1] != ' ');
  }

  // False, and nothing is written: not this text.
  bool literal(std::string_view text, std::size_t indent) {
    if (text.front() == ' ' || text.front() == '\n' || text.back() == ' ' ||
        text.ends_with("\n\n")) {
      return false;  // libyaml needs more hints for these than the one below
    }
    const std::size_t size = out_.size();
    const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
    out_.reserve(size + text.size() + (lines + 1) * (indent + kIndent) + 16);
    out_ += text.back() == '\n' ? " |\n" : " |-\n";
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      if (line.ends_with(' ') || !text::is_printable_ascii(line)) {
        out_.resize(size);
        return false;
      }
      if (!line.empty()) {
        out_.append(indent + kIndent, ' ');
        out_ += line;
      }
      if (end < text.size()) {
        out_ += '\n';
      }
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return true;
  }

  std::string out_;
  std::size_t line_began_ = 0;
  bool possible_ = true;
};

}  // namespace

std::optional<std::string> write_yaml_by_hand(const Value& value) {
  Writer writer;
  return writer.write_document(value);
}

}  // namespace einhorn::wire
