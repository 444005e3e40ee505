// JSON, by nlohmann::json; bounded like YAML is.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "wire/value.h"
#include "wire/yaml.h"

namespace einhorn::wire {

// Strict JSON, one document. Errors: not JSON, invalid UTF-8, a limit. Integers beyond 64 bits
// become reals.
[[nodiscard]] Result<Value> parse_json(std::string_view text, const YamlLimits& limits = {});

// One line, no newline at its end. What YAML readers make of it is the same as what JSON readers
// do, and so is what clients for Einhorn make of it that decode %XX or turn `+` into a space: `%`,
// `+` and everything beyond ASCII are written \uXXXX, except that characters beyond U+FFFF stand as
// they are (YAML knows no surrogate pairs). Symbols become strings, times ISO 8601 strings in UTC,
// sets lists, and keys that are no strings their text. Bytes that are not UTF-8 become U+FFFD.
// Reals that are not finite become null.
[[nodiscard]] std::string encode_json(const Value& value);

}  // namespace einhorn::wire
