// YAML as somebody wrote it into a file: every node with its place, every scalar as it was spelled.
//
// What a scalar means is left to who reads it: `0600` stays `0600`. Anchors, aliases, tags, merge
// keys, keys that are no scalars, a key that is there twice and a second document are refused, so a
// small file stays a small document.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace einhorn::wire {

struct Mark {
  std::size_t line = 1;    // from 1
  std::size_t column = 1;  // from 1, in characters
};

struct MarkedNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  Mark at;
  std::string text;               // kScalar: its characters
  bool quoted = false;            // kScalar: it can be nothing but a text
  std::vector<MarkedNode> keys;   // kMap: scalars, as many as `items`
  std::vector<MarkedNode> items;  // kList; of a kMap the values
};

struct MarkedLimits {
  int nesting = 16;
  std::size_t nodes = 20'000;
};

// The document of the text, which is UTF-8; Null if there is none. Errors: `operation` is the place
// as LINE:COLUMN, `detail` one line.
[[nodiscard]] Result<MarkedNode> parse_marked_yaml(std::string_view text,
                                                   const MarkedLimits& limits = {});

}  // namespace einhorn::wire
