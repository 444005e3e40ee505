#include "shell/top_waterfall.h"

#include <algorithm>
#include <cstdint>

namespace einhorn::shell {
namespace {

constexpr std::size_t kLabel = 14;  // "  12     4711 "

struct Life {
  const client::WorkerView* worker = nullptr;
  double changed = 0;  // when it was last started, up, told to stop or gone
};

std::string padded(const std::string& text, std::size_t width) {
  return text.size() >= width ? text : std::string(width - text.size(), ' ') + text;
}

std::vector<Life> lives_of(const client::PoolModel& pool, double from) {
  std::vector<Life> lives;
  const auto add = [&lives](const client::WorkerView& worker) {
    lives.push_back({&worker, std::max({worker.spawned_at, worker.ready_at, worker.stopping_at,
                                        worker.ended_at})});
  };
  for (auto it = pool.ended().rbegin(); it != pool.ended().rend() && it->ended_at >= from; ++it) {
    add(*it);
  }
  for (const auto& [epoch, worker] : pool.workers()) {
    add(worker);
  }
  return lives;
}

struct Scale {
  double from = 0;
  double step = 1;  // seconds a column
  std::size_t columns = 0;

  // The column of a moment; before the first one: 0.
  [[nodiscard]] std::size_t of(double at) const {
    return at <= from ? 0 : static_cast<std::size_t>((at - from) / step);
  }
};

// Letters of one life: later phases win where two fall into one column.
TopLine bar_of(const client::WorkerView& worker, const Scale& scale) {
  const std::size_t begin = scale.of(worker.spawned_at);
  const double gone = worker.ended_at;
  const std::size_t end = std::min(gone > 0 ? scale.of(gone) + 1 : scale.columns, scale.columns);
  if (begin >= end) {
    return {};
  }
  std::string bar(scale.columns, ' ');
  std::fill(bar.begin() + static_cast<std::ptrdiff_t>(begin),
            bar.begin() + static_cast<std::ptrdiff_t>(end), '.');
  const auto paint = [&](double since, char letter) {
    if (since > 0 && scale.of(since) < end) {
      std::fill(bar.begin() + static_cast<std::ptrdiff_t>(std::max(begin, scale.of(since))),
                bar.begin() + static_cast<std::ptrdiff_t>(end), letter);
    }
  };
  paint(worker.ready_at, static_cast<char>('0' + worker.version % 10));
  paint(worker.stopping_at, '-');
  if (gone > 0) {
    bar[end - 1] = worker.crashed() ? 'X' : '|';
  }
  TopLine line;
  for (std::size_t at = 0; at < bar.size();) {
    const std::size_t to = std::min(bar.find_first_not_of(bar[at], at), bar.size());
    const char letter = bar[at];
    const Style style = letter == 'X'                    ? Style::kBad
                        : letter == '.'                  ? Style::kWarning
                        : letter == '-' || letter == '|' ? Style::kDim
                        : letter == ' '                  ? Style::kPlain
                                                         : Style::kVersion;
    line.push_back({bar.substr(at, to - at), style, worker.version});
    at = to;
  }
  return line;
}

std::string ago(double seconds) {
  const std::int64_t whole =
      (from_seconds(seconds) + std::chrono::milliseconds{500}) / std::chrono::seconds{1};
  return "-" + (whole >= 60 ? std::to_string(whole / 60) + "m" : std::to_string(whole) + "s");
}

TopLine scale_of(double window, std::size_t columns) {
  std::string text(kLabel, ' ');
  const std::size_t wide = columns - kLabel;
  std::string marks(wide, ' ');
  for (const double part : {1.0, 0.75, 0.5, 0.25}) {
    const std::string mark = ago(window * part);
    const auto at = static_cast<std::size_t>(static_cast<double>(wide) * (1 - part));
    if (at + mark.size() + 4 <= wide) {
      marks.replace(at, mark.size(), mark);
    }
  }
  marks.replace(wide - 3, 3, "now");
  return {{text + marks, Style::kDim, 0}};
}

}  // namespace

std::vector<TopLine> draw_waterfall(const client::PoolModel& pool, Duration window,
                                    std::size_t rows, std::size_t columns, double now) {
  if (rows < 2 || columns < kLabel + 20) {
    return {};
  }
  const double seconds = to_seconds(window);
  std::vector<Life> lives = lives_of(pool, now - seconds);
  if (lives.size() > rows - 1) {
    const auto last = lives.begin() + static_cast<std::ptrdiff_t>(rows - 1);
    std::partial_sort(lives.begin(), last, lives.end(), [](const Life& one, const Life& other) {
      return one.changed != other.changed ? one.changed > other.changed
                                          : one.worker->epoch > other.worker->epoch;
    });
    lives.erase(last, lives.end());
  }
  std::sort(lives.begin(), lives.end(), [](const Life& one, const Life& other) {
    return one.worker->epoch < other.worker->epoch;
  });
  const std::size_t wide = columns - kLabel;
  const Scale scale{now - seconds, seconds / static_cast<double>(wide), wide};
  std::vector<TopLine> lines;
  for (const Life& life : lives) {
    TopLine line = {{padded(std::to_string(life.worker->slot), 4) +
                         padded(std::to_string(life.worker->pid), 9) + " ",
                     Style::kPlain, 0}};
    for (TopSpan& span : bar_of(*life.worker, scale)) {
      line.push_back(std::move(span));
    }
    lines.push_back(std::move(line));
  }
  lines.push_back(scale_of(seconds, columns));
  return lines;
}

}  // namespace einhorn::shell
