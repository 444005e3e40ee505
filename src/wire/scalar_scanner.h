// What a plain YAML scalar means to Ruby: the rules of Psych's ScalarScanner.
#pragma once

#include <string_view>

#include "wire/value.h"

namespace einhorn::wire {

struct ScannedScalar {
  Value value;
  // Psych makes a Date of it, or fails on it (`0x_`, `.e+5`). The value is the text itself then,
  // and whoever writes such a string has to quote it.
  bool other_than_string = false;
};

// Never fails: what is nothing else is a string. Integers beyond 64 bits become reals, times beyond
// WallTime's range stay strings.
[[nodiscard]] ScannedScalar scan_scalar(std::string_view text);

}  // namespace einhorn::wire
