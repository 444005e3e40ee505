// What `top` shows, as text: a screen of any size is made from what is known of a pool. No terminal
// here: top_screen.h puts it onto one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/instant.h"
#include "client/pool_model.h"

namespace einhorn::shell {

enum class Style {
  kPlain,
  kHead,  // of columns
  kDim,   // what does not matter now
  kGood,
  kWarning,
  kBad,
  kVersion,  // of a version: TopSpan::version says which
};

struct TopSpan {
  std::string text;  // printable ASCII
  Style style = Style::kPlain;
  std::int64_t version = 0;
};
using TopLine = std::vector<TopSpan>;

enum class TopColumn {
  kIndex,
  kPid,
  kVersion,
  kState,
  kAge,
  kMemory,
  kCpu,
  kBusy,
  kRequests,
  kPing,
};

enum class TopLayout { kBoth, kWorkers, kWaterfall, kHelp };

struct TopSettings {
  TopColumn sort = TopColumn::kIndex;
  bool reversed = false;   // the largest first
  std::size_t scroll = 0;  // workers above the first one that is shown
  TopLayout layout = TopLayout::kBoth;
  Duration window = std::chrono::minutes{5};  // of the waterfall
  std::string notice;                         // what was said last; "" nothing
};

// The window one step longer, or shorter: 1, 5, 15, 60 minutes.
[[nodiscard]] Duration step_window(Duration window, bool longer);
// The column that this key sorts by; kIndex and false: none.
[[nodiscard]] bool column_of(char key, TopColumn& column);
[[nodiscard]] TopColumn next_column(TopColumn column, bool right);

// Exactly `rows` lines, none longer than `columns`. `now`: seconds since 1970. A scroll position
// behind the last worker is mended.
[[nodiscard]] std::vector<TopLine> draw_top(const client::PoolModel& pool, TopSettings& settings,
                                            std::size_t rows, std::size_t columns, double now);
// How many workers a page of draw_top has.
[[nodiscard]] std::size_t top_page(const TopSettings& settings, std::size_t rows);

[[nodiscard]] std::string text_of_line(const TopLine& line);

}  // namespace einhorn::shell
