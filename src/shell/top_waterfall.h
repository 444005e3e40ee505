// The waterfall of `top`: a row for each worker's life, from the left, long ago, to now.
//
//   .....000000000000000000-----|      starting, ready (its version's last digit), stopping, gone
//   ...00000000X                       X: it crashed
#pragma once

#include <cstddef>
#include <vector>

#include "shell/top_view.h"

namespace einhorn::shell {

// At most `rows` lines of lives in the window, with a scale as the last one. If there is no room
// for all, those that changed last are there; in the order in which they were started.
[[nodiscard]] std::vector<TopLine> draw_waterfall(const client::PoolModel& pool, Duration window,
                                                  std::size_t rows, std::size_t columns,
                                                  double now);

}  // namespace einhorn::shell
