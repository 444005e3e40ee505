// The spelling of single scalars, shared by the encoders and decoders of this room: UTF-8, wall
// time as a calendar reads, real numbers as Ruby prints them, base64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/instant.h"

namespace einhorn::wire::text {

// One code point and how many bytes it took. `code` is kInvalid (and `bytes` 1) where the bytes are
// no UTF-8: overlong forms and surrogates included.
struct CodePoint {
  static constexpr std::uint32_t kInvalid = 0xffffffff;
  std::uint32_t code = kInvalid;
  std::size_t bytes = 1;
};

// Contract: `at` < text.size().
[[nodiscard]] CodePoint decode_utf8(std::string_view text, std::size_t at);
[[nodiscard]] bool is_utf8(std::string_view text);
// Whether there is nothing but ASCII from the space to `~` in it.
[[nodiscard]] bool is_printable_ascii(std::string_view text);
// Every byte that is not part of valid UTF-8 becomes U+FFFD.
[[nodiscard]] std::string to_utf8(std::string_view text);
// The number of code points; a byte that is no UTF-8 counts as one.
[[nodiscard]] std::size_t count_characters(std::string_view text);
// Whether a Ruby regular expression counts the character as [[:word:]]. Exact below U+10000; every
// character above counts as none (libyaml escapes all of those, so nothing depends on it).
[[nodiscard]] bool is_word(std::uint32_t code);

// A double-quoted literal as Ruby's String#inspect writes it.
[[nodiscard]] std::string ruby_quoted(std::string_view text);
// As Ruby's Float#to_s: the shortest digits that read back the same, `1.0e+20` for a whole number from
// 1e15 on and below 0.0001; "Infinity", "-Infinity", "NaN".
[[nodiscard]] std::string ruby_real(double value);

// A point in time by the proleptic Gregorian calendar, in UTC.
struct CivilTime {
  std::int64_t year = 1970;
  int month = 1;
  int day = 1;
  int hour = 0;
  int minute = 0;
  int second = 0;
  int nanosecond = 0;
};

[[nodiscard]] CivilTime to_civil(WallTime time);
// Empty outside the range of WallTime (the years 1677 to 2262). Days past the end of a month and
// second 60 carry over, as they do in Ruby. `offset_seconds` is how far the zone is ahead of UTC.
[[nodiscard]] std::optional<WallTime> from_civil(const CivilTime& civil, int offset_seconds);
// Whether there is such a day.
[[nodiscard]] bool is_date(std::int64_t year, int month, int day);

[[nodiscard]] std::string civil_date(const CivilTime& civil);      // 2026-11-22
[[nodiscard]] std::string civil_clock(const CivilTime& civil);     // 03:29:20
[[nodiscard]] std::string civil_fraction(const CivilTime& civil);  // 794054719

[[nodiscard]] std::string encode_base64(std::string_view bytes);
// Skips what is not base64, and ends at the first `=`.
[[nodiscard]] std::string decode_base64(std::string_view text);

}  // namespace einhorn::wire::text
