// What the targets that read documents ask of every document that was read.
#pragma once

#include "fuzz.h"
#include "wire/value.h"
#include "wire/yaml.h"

namespace einhorn::fuzz {

// It keeps the limits it was read under.
void holds_within(const wire::Value& value, const wire::YamlLimits& limits);

// What is written of it reads back as the same, in YAML (by whichever writer) and in JSON.
void holds_round_trips(const wire::Value& value);

}  // namespace einhorn::fuzz
