// Numbers that depend on the machine: `auto`, `2*cpus+1`, `max(2, cpus/4)`.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace einhorn::master {

// Whether a text is meant as an expression rather than as a plain number.
[[nodiscard]] bool is_expression(std::string_view text);

// Numbers, `cpus` (or `auto`, the same), + - * /, parentheses, min(...) and max(...); what is left
// behind the point is dropped. Errors: not of that form, division by zero, no whole number of 64
// bits; the message has no operation.
[[nodiscard]] Result<std::int64_t> evaluate(std::string_view text, std::uint32_t cpus);

}  // namespace einhorn::master
