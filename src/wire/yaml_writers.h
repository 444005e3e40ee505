// The two writers behind encode_yaml. They give the same bytes; a test holds them together.
#pragma once

#include <optional>
#include <string>

#include "wire/value.h"

namespace einhorn::wire {

// Any document, by libyaml.
[[nodiscard]] std::string write_yaml_by_libyaml(const Value& value);

// By hand, an order of magnitude faster: the state of a large pool is asked for often, and is two
// documents in each other. Only what is common: a map or a list that is not empty, of scalars in
// printable ASCII without tags, under keys that fit in their line. None: something else is in it.
[[nodiscard]] std::optional<std::string> write_yaml_by_hand(const Value& value);

}  // namespace einhorn::wire
