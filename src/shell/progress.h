// How far an upgrade is: what `state json` says of it, and how that looks in one line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace einhorn::shell {

struct Progress {
  std::int64_t version = 0;   // the one that is on its way
  std::int64_t ready = 0;     // ready workers of it
  std::int64_t number = 0;    // workers that are wanted
  std::int64_t failures = 0;  // new workers that failed
  bool going_back = false;    // to a version that was there before
  friend bool operator==(const Progress&, const Progress&) = default;
};

// None: no upgrade is under way. Errors: the text is no such state (that of a Ruby master isn't).
[[nodiscard]] Result<std::optional<Progress>> parse_progress(std::string_view state_json);

// "[#####-----] 3/8 workers of version 2 ready", in at most `width` columns: the bar takes what is
// left beside the words, and goes first when there is too little room.
[[nodiscard]] std::string draw_progress(const Progress& progress, std::size_t width);

}  // namespace einhorn::shell
