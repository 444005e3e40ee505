#include "wire/scalar_scanner.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>

#include "base/numbers.h"
#include "wire/text.h"

namespace einhorn::wire {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool equals_ignoring_case(std::string_view text, std::string_view lower_case) {
  return std::equal(text.begin(), text.end(), lower_case.begin(), lower_case.end(),
                    [](char a, char b) { return lower(a) == b; });
}

// Reads a pattern off the front of a text, piece by piece.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}

  [[nodiscard]] bool at_end() const { return rest_.empty(); }
  [[nodiscard]] bool skip(char c) {
    if (rest_.empty() || rest_.front() != c) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }
  std::string_view take_any(std::string_view characters,
                            std::size_t most = std::string_view::npos) {
    const std::size_t length = std::min(rest_.find_first_not_of(characters), rest_.size());
    const std::string_view taken = rest_.substr(0, std::min(length, most));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  // Between `least` and `most` digits as a number; the digits of a match stay few enough for an
  // int.
  std::optional<int> number(std::size_t least, std::size_t most) {
    const std::string_view digits = take_any("0123456789", most);
    if (digits.size() < least) {
      return std::nullopt;
    }
    return number_of<int>(digits);
  }

 private:
  std::string_view rest_;
};

constexpr std::string_view kDigits = "0123456789";
constexpr std::string_view kSpaces = " \t\r\n\f\v";

// Ruby: /^[^\d.:-]?[[:alpha:]_\s!@#$%\^&*(){}<>|\/\\~;=]+/ on a text of one line. What starts with
// other than ASCII can't become anything but a string, so it counts as matching.
bool starts_like_words(std::string_view text) {
  const auto is_word_like = [](char c) {
    return is_letter(c) || static_cast<unsigned char>(c) >= 0x80 ||
           std::string_view("_ \t\r\n\f\v!@#$%^&*(){}<>|/\\~;=").find(c) != std::string_view::npos;
  };
  if (is_word_like(text[0])) {
    return true;
  }
  const bool number_like = is_digit(text[0]) || text[0] == '.' || text[0] == ':' || text[0] == '-';
  return !number_like && text.size() > 1 && is_word_like(text[1]);
}

// True, false or nil, in a text of at most five characters. Ruby's `^` and `$` match at every line.
std::optional<Value> scan_words(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    lines.push_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const auto any_line = [&](std::initializer_list<std::string_view> words) {
    return std::any_of(lines.begin(), lines.end(), [&](std::string_view line) {
      return std::any_of(words.begin(), words.end(),
                         [&](std::string_view word) { return equals_ignoring_case(line, word); });
    });
  };
  const auto surely_string = [](std::string_view line) {
    // An empty line begins, for Ruby, with its newline.
    return line.empty() ||
           std::string_view("ytonf~").find(lower(line[0])) == std::string_view::npos;
  };
  if (std::any_of(lines.begin(), lines.end(), surely_string)) {
    return std::nullopt;
  }
  if (text == "~" || any_line({"null"})) {
    return Value();
  }
  if (any_line({"yes", "true", "on"})) {
    return Value(true);
  }
  if (any_line({"no", "false", "off"})) {
    return Value(false);
  }
  return std::nullopt;
}

// The zone behind a time: nothing and Z are UTC. Empty: malformed. Out of range comes back as it
// is.
std::optional<int> scan_zone(Cursor& cursor) {
  cursor.take_any(kSpaces);
  if (cursor.at_end() || cursor.skip('Z')) {
    return cursor.at_end() ? std::optional(0) : std::nullopt;
  }
  const bool behind = cursor.skip('-');
  if (!behind && !cursor.skip('+')) {
    return std::nullopt;
  }
  const std::optional<int> hours = cursor.number(1, 2);
  if (!hours) {
    return std::nullopt;
  }
  static_cast<void>(cursor.skip(':'));
  int minutes = 0;
  if (!cursor.at_end()) {
    const std::optional<int> given = cursor.number(2, 2);
    if (!given || !cursor.at_end()) {
      return std::nullopt;
    }
    minutes = *given;
  }
  // Psych takes the sign from the hours alone, so -00:30 is ahead of UTC to it.
  const int seconds = *hours * 3600 + minutes * 60;
  return behind && *hours > 0 ? -seconds : seconds;
}

bool is_clock(const text::CivilTime& civil) {
  if (civil.hour == 24) {
    return civil.minute == 0 && civil.second == 0;
  }
  return civil.hour < 24 && civil.minute < 60 && civil.second <= 60;
}

std::optional<ScannedScalar> scan_time(std::string_view text) {
  Cursor cursor(text);
  const bool before_christ = cursor.skip('-');
  const std::optional<int> year = cursor.number(4, 4);
  if (before_christ || !year || !cursor.skip('-')) {
    return std::nullopt;
  }
  const std::optional<int> month = cursor.number(1, 2);
  const std::optional<int> day = month && cursor.skip('-') ? cursor.number(1, 2) : std::nullopt;
  if (!day || (!cursor.skip('T') && !cursor.skip('t') && cursor.take_any(kSpaces).empty())) {
    return std::nullopt;
  }
  const std::optional<int> hour = cursor.number(1, 2);
  const std::optional<int> minute = hour && cursor.skip(':') ? cursor.number(2, 2) : std::nullopt;
  const std::optional<int> second = minute && cursor.skip(':') ? cursor.number(2, 2) : std::nullopt;
  if (!second) {
    return std::nullopt;
  }
  text::CivilTime civil{*year, *month, *day, *hour, *minute, *second, 0};
  if (cursor.skip('.')) {
    std::string fraction(cursor.take_any(kDigits).substr(0, 9));
    fraction.append(9 - fraction.size(), '0');
    civil.nanosecond = number_of<int>(fraction);
  }
  const std::optional<int> offset = scan_zone(cursor);
  const bool valid = civil.month >= 1 && civil.month <= 12 && civil.day >= 1 && civil.day <= 31 &&
                     is_clock(civil) && offset && std::abs(*offset) < 86'400;
  if (!valid) {
    return std::nullopt;
  }
  const std::optional<WallTime> time = text::from_civil(civil, *offset);
  return time ? ScannedScalar{*time} : ScannedScalar{text, true};
}

bool scan_date(std::string_view text) {
  Cursor cursor(text);
  const std::optional<int> year = cursor.number(4, 4);
  const std::optional<int> month = year && cursor.skip('-') ? cursor.number(1, 2) : std::nullopt;
  const std::optional<int> day = month && cursor.skip('-') ? cursor.number(1, 2) : std::nullopt;
  return day && cursor.at_end() && text::is_date(*year, *month, *day);
}

std::string_view symbol_name(std::string_view text) {
  text.remove_prefix(1);
  if (text.size() >= 2 && (text[0] == '"' || text[0] == '\'')) {
    const std::size_t closing = text.rfind(text[0]);
    if (closing > 0) {
      text = text.substr(1, closing - 1);
      return text.starts_with(':') ? text.substr(1) : text;
    }
  }
  return text;
}

std::string without(std::string_view text, std::string_view characters) {
  std::string out;
  std::copy_if(text.begin(), text.end(), std::back_inserter(out),
               [&](char c) { return characters.find(c) == std::string_view::npos; });
  return out;
}

double to_real(const std::string& text) {
  // from_chars neither reads the locale nor takes a leading plus.
  const std::string_view digits = std::string_view(text).substr(text.starts_with('+') ? 1 : 0);
  double value = 0;
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end.ec == std::errc::result_out_of_range) {
    return std::strtod(text.c_str(), nullptr);
  }
  return value;
}

// Digits in a base, with an optional sign; a real where 64 bits do not suffice.
Value to_integer(std::string_view digits, bool negative, int base) {
  std::int64_t value = 0;
  const std::string signed_digits = (negative ? "-" : "") + std::string(digits);
  const auto end = std::from_chars(signed_digits.data(),
                                   signed_digits.data() + signed_digits.size(), value, base);
  if (end.ec == std::errc()) {
    return value;
  }
  double real = 0;
  if (base == 10) {
    real = to_real(std::string(digits));
  } else {
    for (const char c : digits) {
      real = real * base + (is_digit(c) ? c - '0' : lower(c) - 'a' + 10);
    }
  }
  return negative ? -real : real;
}

double real_or_zero(const Value& value) {
  const double* real = value.as_real();
  return real != nullptr ? *real : 0;
}

// Numbers in base 60: /^[-+]?[0-9][0-9_]*(:[0-5]?[0-9]){1,2}$/, with `.[0-9_]*` behind it a real.
// Psych gives the first group the weight of hours always, and the sign to it alone.
std::optional<Value> scan_sexagesimal(std::string_view text) {
  Cursor cursor(text);
  const bool negative = cursor.skip('-');
  if (!negative) {
    static_cast<void>(cursor.skip('+'));
  }
  const std::string_view first = cursor.take_any("0123456789_");
  if (first.empty() || first[0] == '_') {
    return std::nullopt;
  }
  // Ruby's to_i stops at two underscores in a row.
  const std::string leading = without(first.substr(0, first.find("__")), "_");
  const Value head = to_integer(leading, negative, 10);
  const std::int64_t* small = head.as_integer();
  double total = 3600 * (small != nullptr ? static_cast<double>(*small) : real_or_zero(head));
  int groups = 0;
  for (int weight = 60; groups < 2 && cursor.skip(':'); ++groups, weight /= 60) {
    const std::optional<int> value = cursor.number(1, 2);
    if (!value || *value > 59) {
      return std::nullopt;
    }
    total += *value * weight;
    if (cursor.at_end() && std::abs(total) < 9e15) {
      return Value(static_cast<std::int64_t>(total));
    }
    if (cursor.at_end()) {
      return Value(total);
    }
    if (cursor.skip('.')) {
      const std::string fraction = "0." + without(cursor.take_any("0123456789_"), "_") + "0";
      return cursor.at_end() ? std::optional(Value(total + to_real(fraction) * weight))
                             : std::nullopt;
    }
  }
  return std::nullopt;
}

// /^[-+]?([0-9][0-9_,]*)?\.[0-9]*([eE][-+][0-9]+)?$/
std::optional<ScannedScalar> scan_real(std::string_view text) {
  Cursor cursor(text);
  if (!cursor.skip('-')) {
    static_cast<void>(cursor.skip('+'));
  }
  const std::string_view whole = cursor.take_any("0123456789_,");
  if ((!whole.empty() && !is_digit(whole[0])) || !cursor.skip('.')) {
    return std::nullopt;
  }
  const std::string_view fraction = cursor.take_any(kDigits);
  bool exponent = false;
  if (!cursor.at_end()) {
    exponent = (cursor.skip('e') || cursor.skip('E')) && (cursor.skip('-') || cursor.skip('+')) &&
               !cursor.take_any(kDigits).empty() && cursor.at_end();
    if (!exponent) {
      return std::nullopt;
    }
  }
  if (whole.empty() && fraction.empty()) {
    return ScannedScalar{text, exponent};  // "." and "-." are strings
  }
  return ScannedScalar{to_real(without(text, "_,"))};
}

std::optional<ScannedScalar> scan_integer(std::string_view text) {
  std::string_view digits = text;
  const bool negative = digits.starts_with('-');
  digits.remove_prefix(negative || digits.starts_with('+') ? 1 : 0);
  int base = 10;
  std::string_view allowed = "0123456789_,";
  std::size_t prefix = 0;
  if (digits.starts_with("0b")) {
    base = 2, allowed = "01_,", prefix = 2;
  } else if (digits.starts_with("0x")) {
    base = 16, allowed = "0123456789abcdefABCDEF_,", prefix = 2;
  } else if (digits.size() > 1 && digits[0] == '0') {
    base = 8, allowed = "01234567_,", prefix = 1;
  } else if (digits.empty() || !is_digit(digits[0])) {
    return std::nullopt;
  }
  digits.remove_prefix(prefix);
  if (digits.find_first_not_of(allowed) != std::string_view::npos ||
      (prefix == 2 && digits.empty())) {
    return std::nullopt;
  }
  if (base == 10) {
    // Here a separator stands between two digits only.
    for (std::size_t at = 0; at < digits.size(); ++at) {
      if (!is_digit(digits[at]) && (at + 1 == digits.size() || !is_digit(digits[at + 1]))) {
        return std::nullopt;
      }
    }
  }
  const std::string bare = without(digits, "_,");
  if (bare.empty()) {
    return prefix == 1 ? ScannedScalar{0} : ScannedScalar{text, true};
  }
  return ScannedScalar{to_integer(bare, negative, base)};
}

}  // namespace

ScannedScalar scan_scalar(std::string_view text) {
  if (text.empty()) {
    return {};
  }
  if (text.find('\n') != std::string_view::npos || starts_like_words(text)) {
    if (text::count_characters(text) > 5) {
      return {text};
    }
    return {scan_words(text).value_or(text)};
  }
  if (const std::optional<ScannedScalar> time = scan_time(text)) {
    return *time;
  }
  if (scan_date(text)) {
    return {text, true};
  }
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (equals_ignoring_case(text, ".inf") || equals_ignoring_case(text, "+.inf")) {
    return {kInfinity};
  }
  if (equals_ignoring_case(text, "-.inf")) {
    return {-kInfinity};
  }
  if (equals_ignoring_case(text, ".nan")) {
    return {std::numeric_limits<double>::quiet_NaN()};
  }
  if (text.size() > 1 && text[0] == ':') {
    return {Symbol{std::string(symbol_name(text))}};
  }
  if (const std::optional<Value> number = scan_sexagesimal(text)) {
    return {*number};
  }
  if (const std::optional<ScannedScalar> real = scan_real(text)) {
    return *real;
  }
  if (const std::optional<ScannedScalar> integer = scan_integer(text)) {
    return *integer;
  }
  return {text};
}

}  // namespace einhorn::wire
