// YAML in Ruby's flavour, by libyaml (the library that Ruby's own Psych is made of).
//
// Reading resolves plain scalars as Psych does, understands symbols (`:name`), Ruby sets
// (`!ruby/object:Set` and `!ruby/set`) and timestamps, and refuses every other tag. It is bounded
// in nesting, number of nodes, size of a scalar and, unless asked otherwise, refuses anchors and
// aliases. Writing gives the bytes that Ruby's `YAML.dump` gives for the same document.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "base/result.h"
#include "wire/value.h"

namespace einhorn::wire {

struct YamlLimits {
  int nesting = limits::kMaxNesting;
  std::size_t nodes = limits::kMaxDocumentNodes;
  std::size_t scalar_bytes = limits::kMaxScalarBytes;
  // true: an alias is a copy of what was anchored. The copies count as nodes, and the strings in
  // all of them together may be as long as one scalar.
  bool aliases = false;
};

// The first document of the text, which is UTF-8; what follows it is not looked at. Errors: not
// YAML, a limit, an unknown tag, an anchor or alias; the message is one line and names line and
// column, or the byte. An empty text is Null.
[[nodiscard]] Result<Value> parse_yaml(std::string_view text, const YamlLimits& limits = {});

// A whole document: "---\n...\n".
[[nodiscard]] std::string encode_yaml(const Value& value);

}  // namespace einhorn::wire
