// What the targets that read documents ask of every document that was read.
#pragma once

#include "fuzz.h"
#include "wire/value.h"
#include "wire/yaml.h"

namespace einhorn::fuzz {

// It keeps the limits it was read under.
void holds_within(const wire::Value& value, const wire::YamlLimits& limits);

// Whether it has a symbol that Ruby's Psych writes, and so do we, such that it is something else when
// it is read: one whose name begins with a quotation mark loses that, one with a line break becomes a
// string.
[[nodiscard]] bool has_unstable_symbol(const wire::Value& value);

// What is written of it reads back as the same, in YAML (by whichever writer) and in JSON.
void holds_round_trips(const wire::Value& value);

}  // namespace einhorn::fuzz
