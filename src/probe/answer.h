// What a server has answered to an HTTP probe: its first line alone. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace einhorn::probe {

inline constexpr std::size_t kMostAnswer = 4096;  // a first line that is longer is none

struct Answer {
  enum class Kind {
    kMore,     // the line has not ended yet
    kNothing,  // it closed the connection without a word
    kOther,    // that is no HTTP
    kStatus,
  };
  Kind kind = Kind::kMore;
  int status = 0;    // of kStatus, 100 to 999
  std::string line;  // its beginning, as one line that can be shown
};

// `text`: all that has come so far. `ended`: there will be no more.
[[nodiscard]] Answer read_answer(std::string_view text, bool ended);

}  // namespace einhorn::probe
