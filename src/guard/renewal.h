// What a guard writes down when it becomes another program, read by that program.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace einhorn::guard {

struct Renewal {
  int how = 1;  // 1: go on as the guard; 2: leave the pool to --reexec-as
  pid_t master = -1;
  int control = -1;
  std::uint64_t signals = 0;                     // not confirmed by the master yet
  std::vector<std::pair<std::string, int>> fds;  // what is kept, by name
};

// Lines that mean nothing are skipped; what is missing keeps its value from above.
[[nodiscard]] Renewal parse_renewal(std::string_view text);

}  // namespace einhorn::guard
