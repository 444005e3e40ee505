#include "wire/yaml_spelling.h"

#include <cmath>

#include "wire/scalar_scanner.h"
#include "wire/text.h"

namespace einhorn::wire {
namespace {

// Whether some line begins with other than a word character and ends before the next `"`.
// Ruby: /^[^[:word:]][^"]*$/
bool has_line_of_other_start(std::string_view text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (at > 0 && text[at - 1] != '\n') {
      continue;
    }
    const text::CodePoint point = text::decode_utf8(text, at);
    if (text::is_word(point.code)) {
      continue;
    }
    const std::string_view rest = text.substr(at + point.bytes);
    if (rest.find('"') == std::string_view::npos || rest.find('\n') < rest.find('"')) {
      return true;
    }
  }
  return false;
}

// A newline that is followed by more than one last newline.
bool has_inner_newline(std::string_view text) {
  const std::size_t newline = text.find('\n');
  return newline != std::string_view::npos && newline + 1 < text.size() &&
         text.substr(newline + 1) != "\n";
}

bool looks_like_decimal_in_octal(std::string_view text) {
  if (!text.starts_with('0')) {
    return false;
  }
  const std::size_t end = text.find_first_not_of("01234567");
  return end != std::string_view::npos && (text[end] == '8' || text[end] == '9');
}

}  // namespace

Spelling spell_string(std::string_view text) {
  if (has_inner_newline(text)) {
    return {nullptr, true, true, ScalarStyle::kLiteral};
  }
  if (text == "<<") {
    return {"tag:yaml.org,2002:str", false, false, ScalarStyle::kSingleQuoted};
  }
  if (text == "y" || text == "n" || has_line_of_other_start(text)) {
    return {nullptr, true, true, ScalarStyle::kDoubleQuoted};
  }
  const ScannedScalar scanned = scan_scalar(text);
  if (scanned.other_than_string || scanned.value.as_string() == nullptr ||
      looks_like_decimal_in_octal(text)) {
    return {nullptr, true, true, ScalarStyle::kSingleQuoted};
  }
  return {nullptr, true, true, ScalarStyle::kPlain};
}

std::string spell_real(double value) {
  if (std::isnan(value)) {
    return ".nan";
  }
  if (std::isinf(value)) {
    return value > 0 ? ".inf" : "-.inf";
  }
  return text::ruby_real(value);
}

std::string spell_time(WallTime value) {
  const text::CivilTime civil = text::to_civil(value);
  std::string out = text::civil_date(civil);
  out.reserve(sizeof "2026-11-22 03:29:20.794054719 +00:00");
  out += ' ';
  out += text::civil_clock(civil);
  out += '.';
  out += text::civil_fraction(civil);
  out += " +00:00";
  return out;
}

}  // namespace einhorn::wire
