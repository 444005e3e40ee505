// How Psych spells one scalar: the text, and the style it asks libyaml for. Which of these styles
// a text can really be written in depends on its place, and is for the writers to decide.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "wire/value.h"

namespace einhorn::wire {

enum class ScalarStyle : std::uint8_t { kPlain, kSingleQuoted, kDoubleQuoted, kLiteral };

// `plain` and `quoted` say whether the scalar's kind can still be told when it has no tag.
struct Spelling {
  const char* tag = nullptr;
  bool plain = true;
  bool quoted = false;
  ScalarStyle style = ScalarStyle::kPlain;
};

// Contract: UTF-8.
[[nodiscard]] Spelling spell_string(std::string_view text);

// The texts of the other kinds; all of them ASCII, and written plain.
[[nodiscard]] std::string spell_real(double value);
[[nodiscard]] std::string spell_time(WallTime value);

inline constexpr std::string_view kSetTag = "!ruby/object:Set";

}  // namespace einhorn::wire
