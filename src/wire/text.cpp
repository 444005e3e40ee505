#include "wire/text.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/numbers.h"

namespace einhorn::wire::text {
namespace {

constexpr std::int64_t kNanosecondsASecond = 1'000'000'000;
constexpr std::int64_t kSecondsADay = 86'400;

unsigned byte_at(std::string_view text, std::size_t at) {
  return static_cast<unsigned char>(text[at]);
}

// Eight bytes at a time: texts are long, and nearly all of them are nothing but ASCII.
constexpr std::uint64_t kEveryByte = 0x0101010101010101;
constexpr std::uint64_t kHighBits = kEveryByte * 0x80;

std::uint64_t word_at(std::string_view text, std::size_t at) {
  std::uint64_t word = 0;
  std::memcpy(&word, text.data() + at, sizeof word);
  return word;
}

// Where the first word begins that is not all ASCII; the end if less than a word is left.
std::size_t skip_ascii(std::string_view text, std::size_t at) {
  while (text.size() - at >= sizeof(std::uint64_t) && (word_at(text, at) & kHighBits) == 0) {
    at += sizeof(std::uint64_t);
  }
  return at;
}

// Days since 1970-01-01. Years are counted from March, so that the leap day is a year's last.
std::int64_t days_from_civil(std::int64_t year, int month, int day) {
  year -= month <= 2 ? 1 : 0;
  const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
  const std::int64_t year_of_era = year - era * 400;
  const std::int64_t month_from_march = (month + 9) % 12;
  const std::int64_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
  const std::int64_t day_of_era =
      year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146'097 + day_of_era - 719'468;
}

std::int64_t floor_divide(std::int64_t value, std::int64_t by) {
  return value / by - (value % by < 0 ? 1 : 0);
}

std::string padded(std::int64_t value, std::size_t width) {
  std::string digits = std::to_string(value < 0 ? -value : value);
  if (digits.size() < width) {
    digits.insert(0, width - digits.size(), '0');
  }
  return value < 0 ? '-' + digits : digits;
}

// Contract: 0 <= value < 10 to the power of `width`, which is at most 9.
void append_digits(std::string& out, int value, std::size_t width) {
  std::array<char, 9> digits{};
  for (std::size_t at = width; at > 0; --at) {
    digits[at - 1] = static_cast<char>('0' + value % 10);
    value /= 10;
  }
  out.append(digits.data(), width);
}

// The significant digits of a finite number, and where the point stands before or within them:
// 0.DIGITS x 10^point.
struct Digits {
  bool negative = false;
  std::string digits;
  int point = 0;
};

Digits shortest_digits(double value) {
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific)
                       .ptr;
  std::string_view printed(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  Digits result;
  result.negative = printed.starts_with('-');
  printed.remove_prefix(result.negative ? 1 : 0);
  const std::size_t exponent_at = printed.find('e');
  for (const char c : printed.substr(0, exponent_at)) {
    if (c != '.') {
      result.digits += c;
    }
  }
  std::string_view exponent = printed.substr(exponent_at + 1);
  exponent.remove_prefix(exponent.starts_with('+') ? 1 : 0);
  result.point = number_of<int>(exponent) + 1;
  return result;
}

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

CodePoint decode_utf8(std::string_view text, std::size_t at) {
  const unsigned lead = byte_at(text, at);
  if (lead < 0x80) {
    return {lead, 1};
  }
  std::size_t bytes = 0;
  std::uint32_t code = 0;
  std::uint32_t least = 0;
  if (lead >= 0xc2 && lead < 0xe0) {
    bytes = 2;
    code = lead & 0x1fU;
    least = 0x80;
  } else if (lead >= 0xe0 && lead < 0xf0) {
    bytes = 3;
    code = lead & 0x0fU;
    least = 0x800;
  } else if (lead >= 0xf0 && lead < 0xf5) {
    bytes = 4;
    code = lead & 0x07U;
    least = 0x10000;
  }
  if (bytes == 0 || text.size() - at < bytes) {
    return {};
  }
  for (std::size_t i = 1; i < bytes; ++i) {
    const unsigned next = byte_at(text, at + i);
    if ((next & 0xc0U) != 0x80) {
      return {};
    }
    code = (code << 6U) | (next & 0x3fU);
  }
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  if (code < least || surrogate || code > 0x10ffff) {
    return {};
  }
  return {code, bytes};
}

bool is_utf8(std::string_view text) {
  for (std::size_t at = skip_ascii(text, 0); at < text.size();) {
    const CodePoint point = decode_utf8(text, at);
    if (point.code == CodePoint::kInvalid) {
      return false;
    }
    at = skip_ascii(text, at + point.bytes);
  }
  return true;
}

bool is_printable_ascii(std::string_view text) {
  constexpr std::uint64_t kDelete = kEveryByte * 0x7f;
  std::size_t at = 0;
  for (; text.size() - at >= sizeof(std::uint64_t); at += sizeof(std::uint64_t)) {
    const std::uint64_t word = word_at(text, at);
    // A subtraction borrows into a byte's high bit if the byte was less, and had no high bit.
    const std::uint64_t below_space = (word - kEveryByte * ' ') & ~word;
    const std::uint64_t deletes = ((word ^ kDelete) - kEveryByte) & ~(word ^ kDelete);
    if (((word | below_space | deletes) & kHighBits) != 0) {
      return false;
    }
  }
  for (; at < text.size(); ++at) {
    if (text[at] < ' ' || text[at] > '~') {
      return false;
    }
  }
  return true;
}

std::string to_utf8(std::string_view text) {
  if (is_utf8(text)) {
    return std::string(text);
  }
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = decode_utf8(text, at);
    out += point.code == CodePoint::kInvalid ? "\xef\xbf\xbd" : text.substr(at, point.bytes);
    at += point.bytes;
  }
  return out;
}

std::size_t count_characters(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); at += decode_utf8(text, at).bytes) {
    ++count;
  }
  return count;
}

std::string ruby_quoted(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  constexpr std::string_view kEscaped = "\a\b\t\n\v\f\r\x1b\"\\";
  constexpr std::string_view kLetters = "abtnvfre\"\\";
  std::string out = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = decode_utf8(text, at);
    const std::size_t escape = kEscaped.find(text[at]);
    const char next = at + 1 < text.size() ? text[at + 1] : '\0';
    if (point.code == CodePoint::kInvalid) {
      const unsigned byte = byte_at(text, at);
      out += {'\\', 'x', kHex[byte >> 4U], kHex[byte & 15U]};
    } else if (escape != std::string_view::npos) {
      out += {'\\', kLetters[escape]};
    } else if (text[at] == '#' && (next == '{' || next == '$' || next == '@')) {
      out += "\\#";
    } else if (point.code < 0x20 || point.code == 0x7f || point.code == 0x2028 ||
               point.code == 0x2029) {
      out += "\\u";
      for (const unsigned shift : {12U, 8U, 4U, 0U}) {
        out += kHex[(point.code >> shift) & 15U];
      }
    } else {
      out += text.substr(at, point.bytes);
    }
    at += point.bytes;
  }
  return out + '"';
}

std::string ruby_real(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-Infinity" : "Infinity";
  }
  Digits number = shortest_digits(value);
  std::string& digits = number.digits;
  if (value == 0) {
    return number.negative ? "-0.0" : "0.0";
  }
  const auto length = static_cast<int>(digits.size());
  std::string out = number.negative ? "-" : "";
  if (number.point > 0 &&
      (number.point <= std::numeric_limits<double>::digits10 || number.point < length)) {
    if (length <= number.point) {
      digits.append(static_cast<std::size_t>(number.point - length) + 1, '0');
    }
    digits.insert(static_cast<std::size_t>(number.point), ".");
    return out + digits;
  }
  if (number.point > -4 && number.point <= 0) {
    return out + "0." + std::string(static_cast<std::size_t>(-number.point), '0') + digits;
  }
  digits += length == 1 ? "0" : "";
  digits.insert(1, ".");
  const int exponent = number.point - 1;
  return out + digits + (exponent < 0 ? "e-" : "e+") + padded(std::abs(exponent), 2);
}

CivilTime to_civil(WallTime time) {
  const std::int64_t seconds = floor_divide(time.nanoseconds, kNanosecondsASecond);
  const std::int64_t days = floor_divide(seconds, kSecondsADay);
  const auto second_of_day = static_cast<int>(seconds - days * kSecondsADay);
  const std::int64_t shifted = days + 719'468;
  const std::int64_t era = floor_divide(shifted, 146'097);
  const std::int64_t day_of_era = shifted - era * 146'097;
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const std::int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t month_from_march = (5 * day_of_year + 2) / 153;
  CivilTime civil;
  civil.day = static_cast<int>(day_of_year - (153 * month_from_march + 2) / 5 + 1);
  civil.month =
      static_cast<int>(month_from_march < 10 ? month_from_march + 3 : month_from_march - 9);
  civil.year = year_of_era + era * 400 + (civil.month <= 2 ? 1 : 0);
  civil.hour = second_of_day / 3600;
  civil.minute = second_of_day / 60 % 60;
  civil.second = second_of_day % 60;
  const std::int64_t rest = time.nanoseconds % kNanosecondsASecond;  // of the sign of the whole
  civil.nanosecond = static_cast<int>(rest < 0 ? rest + kNanosecondsASecond : rest);
  return civil;
}

std::optional<WallTime> from_civil(const CivilTime& civil, int offset_seconds) {
  if (civil.year < 1677 || civil.year > 2262) {
    return std::nullopt;
  }
  const std::int64_t seconds = days_from_civil(civil.year, civil.month, civil.day) * kSecondsADay +
                               civil.hour * 3600 + civil.minute * 60 + civil.second -
                               offset_seconds;
  std::int64_t nanoseconds = 0;
  if (__builtin_mul_overflow(seconds, kNanosecondsASecond, &nanoseconds) ||
      __builtin_add_overflow(nanoseconds, civil.nanosecond, &nanoseconds)) {
    return std::nullopt;
  }
  return WallTime{nanoseconds};
}

bool is_date(std::int64_t year, int month, int day) {
  constexpr std::array<int, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (month < 1 || month > 12 || day < 1) {
    return false;
  }
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return day <= kDays[static_cast<std::size_t>(month) - 1] + (leap && month == 2 ? 1 : 0);
}

std::string civil_date(const CivilTime& civil) {
  std::string out = padded(civil.year, 4);
  out += '-';
  append_digits(out, civil.month, 2);
  out += '-';
  append_digits(out, civil.day, 2);
  return out;
}

std::string civil_clock(const CivilTime& civil) {
  std::string out;
  append_digits(out, civil.hour, 2);
  out += ':';
  append_digits(out, civil.minute, 2);
  out += ':';
  append_digits(out, civil.second, 2);
  return out;
}

std::string civil_fraction(const CivilTime& civil) {
  std::string out;
  append_digits(out, civil.nanosecond, 9);
  return out;
}

std::string encode_base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t left = bytes.size() - at;
    const unsigned group = (byte_at(bytes, at) << 16U) |
                           (left > 1 ? byte_at(bytes, at + 1) << 8U : 0U) |
                           (left > 2 ? byte_at(bytes, at + 2) : 0U);
    out += kBase64[group >> 18U];
    out += kBase64[(group >> 12U) & 63U];
    out += left > 1 ? kBase64[(group >> 6U) & 63U] : '=';
    out += left > 2 ? kBase64[group & 63U] : '=';
  }
  return out;
}

std::string decode_base64(std::string_view text) {
  std::string out;
  unsigned bits = 0;
  unsigned have = 0;
  for (const char c : text) {
    if (c == '=') {
      break;
    }
    const std::size_t value = kBase64.find(c);
    if (value == std::string_view::npos) {
      continue;
    }
    bits = ((bits << 6U) | static_cast<unsigned>(value)) & 0xffffU;
    have += 6;
    if (have >= 8) {
      have -= 8;
      out += static_cast<char>(static_cast<unsigned char>((bits >> have) & 0xffU));
    }
  }
  return out;
}

}  // namespace einhorn::wire::text
