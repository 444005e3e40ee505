#include "shell/top_view.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "shell/top_waterfall.h"

namespace einhorn::shell {
namespace {

using client::PoolModel;
using client::WorkerView;

constexpr std::array<Duration, 4> kWindows = {std::chrono::minutes{1}, std::chrono::minutes{5},
                                              std::chrono::minutes{15}, std::chrono::minutes{60}};
constexpr std::size_t kHeaderLines = 3;
constexpr std::size_t kLeastForBoth = 14;  // rows, below which there is no waterfall beside it

struct Column {
  TopColumn id;
  char key;
  std::string_view title;
  std::size_t width;
};

constexpr std::array<Column, 10> kColumns = {{{TopColumn::kIndex, 'i', "INDEX", 7},
                                              {TopColumn::kPid, 'p', "PID", 9},
                                              {TopColumn::kVersion, 'v', "VER", 5},
                                              {TopColumn::kState, 's', "STATE", 9},
                                              {TopColumn::kAge, 'a', "AGE", 9},
                                              {TopColumn::kMemory, 'm', "MEMORY", 9},
                                              {TopColumn::kCpu, 'c', "CPU%", 7},
                                              {TopColumn::kBusy, 'b', "BUSY", 6},
                                              {TopColumn::kRequests, 'n', "REQUESTS", 10},
                                              {TopColumn::kPing, 'g', "PING", 8}}};

std::string fixed(double value, int digits) {
  std::array<char, 64> buffer{};
  const int length = std::snprintf(buffer.data(), buffer.size(), "%.*f", digits, value);
  return {buffer.data(), static_cast<std::size_t>(std::clamp(length, 0, 63))};
}

std::string bytes_text(std::uint64_t bytes) {
  double value = static_cast<double>(bytes);
  for (const char* unit : {"", "K", "M", "G"}) {
    if (value < 1000 || *unit == 'G') {
      return fixed(value, *unit == '\0' || value >= 100 ? 0 : 1) + unit;
    }
    value /= 1024;
  }
  return "";
}

// "12s", "3m05s", "7h41m", "12d03h"
std::string span_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::max(0.0, seconds));
  const auto two = [](std::int64_t number) {
    return (number < 10 ? "0" : "") + std::to_string(number);
  };
  if (whole < 60) {
    return std::to_string(whole) + "s";
  }
  if (whole < 3600) {
    return std::to_string(whole / 60) + "m" + two(whole % 60) + "s";
  }
  if (whole < 86400) {
    return std::to_string(whole / 3600) + "h" + two(whole / 60 % 60) + "m";
  }
  return std::to_string(whole / 86400) + "d" + two(whole / 3600 % 24) + "h";
}

std::string cell(const WorkerView& worker, TopColumn column, double now) {
  switch (column) {
    case TopColumn::kIndex:
      return std::to_string(worker.slot);
    case TopColumn::kPid:
      return worker.pid > 0 ? std::to_string(worker.pid) : "-";
    case TopColumn::kVersion:
      return std::to_string(worker.version);
    case TopColumn::kState:
      return worker.state;
    case TopColumn::kAge:
      return span_text(now - worker.spawned_at);
    case TopColumn::kMemory:
      return worker.rss > 0 ? bytes_text(worker.rss) : "-";
    case TopColumn::kCpu:
      return worker.sampled_at > 0 ? fixed(worker.cpu_percent, 1) : "-";
    case TopColumn::kBusy:
      return worker.busy ? "busy" : "-";
    case TopColumn::kRequests:
      return worker.requests > 0 ? std::to_string(worker.requests) : "-";
    case TopColumn::kPing:
      return worker.pinged_at > 0 ? span_text(now - worker.pinged_at) : "-";
  }
  return "";
}

// What it is sorted by; text only by its state.
double key_of(const WorkerView& worker, TopColumn column) {
  switch (column) {
    case TopColumn::kIndex:
      return static_cast<double>(worker.slot);
    case TopColumn::kPid:
      return static_cast<double>(worker.pid);
    case TopColumn::kVersion:
      return static_cast<double>(worker.version);
    case TopColumn::kState:
      return worker.state == "starting" ? 0 : worker.state == "ready" ? 1 : 2;
    case TopColumn::kAge:
      return -worker.spawned_at;
    case TopColumn::kMemory:
      return static_cast<double>(worker.rss);
    case TopColumn::kCpu:
      return worker.cpu_percent;
    case TopColumn::kBusy:
      return worker.busy ? 1 : 0;
    case TopColumn::kRequests:
      return static_cast<double>(worker.requests);
    case TopColumn::kPing:
      return worker.pinged_at > 0 ? -worker.pinged_at : -1e12;
  }
  return 0;
}

Style style_of(const WorkerView& worker) {
  return worker.state == "starting"   ? Style::kWarning
         : worker.state == "stopping" ? Style::kDim
                                      : Style::kPlain;
}

void pad(std::string& text, const std::string& value, std::size_t width) {
  text.append(value.size() < width ? width - value.size() : 1, ' ');
  text += value;
}

TopLine head_line(const TopSettings& settings) {
  TopLine line;
  for (const Column& column : kColumns) {
    const bool sorted = column.id == settings.sort;
    const std::string title =
        std::string(column.title) + (sorted ? (settings.reversed ? "v" : "^") : "");
    std::string text;
    pad(text, title, column.width);
    line.push_back({text, sorted ? Style::kGood : Style::kHead, 0});
  }
  return line;
}

TopLine worker_line(const WorkerView& worker, double now) {
  TopLine line;
  for (const Column& column : kColumns) {
    std::string text;
    pad(text, cell(worker, column.id, now), column.width);
    line.push_back({text,
                    column.id == TopColumn::kVersion               ? Style::kVersion
                    : column.id == TopColumn::kBusy && worker.busy ? Style::kGood
                                                                   : style_of(worker),
                    worker.version});
  }
  return line;
}

std::string upgrade_text(const PoolModel& pool) {
  if (!pool.upgrade()) {
    return "";
  }
  const client::UpgradeView& upgrade = *pool.upgrade();
  const std::string name = (upgrade.kind == "rollback" ? "roll-back" : upgrade.kind + " upgrade") +
                           " v" + std::to_string(upgrade.from) + " -> v" +
                           std::to_string(upgrade.to);
  if (!upgrade.outcome.empty()) {
    return name + ": " + (upgrade.outcome == "rolled_back" ? "rolled back" : upgrade.outcome) +
           (upgrade.reason.empty() ? "" : " (" + upgrade.reason + ")");
  }
  std::size_t fresh = 0;
  std::size_t old = 0;
  for (const auto& [epoch, worker] : pool.workers()) {
    fresh += worker.version == upgrade.to && worker.state == "ready" ? 1U : 0U;
    old += worker.version != upgrade.to ? 1U : 0U;
  }
  return name + ": " + std::to_string(fresh) + " of " + std::to_string(pool.number()) + " ready, " +
         std::to_string(old) + " old ones left";
}

std::string clock_text(double now) {
  const auto seconds = static_cast<std::int64_t>(now) % 86400;
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%02d:%02d:%02dZ", static_cast<int>(seconds / 3600),
                static_cast<int>(seconds / 60 % 60), static_cast<int>(seconds % 60));
  return buffer.data();
}

std::vector<TopLine> header(const PoolModel& pool, const TopSettings& settings, double now) {
  const std::uint64_t ready = pool.ready();
  const bool down = !pool.connected();
  std::string counts = std::to_string(ready) + " of " + std::to_string(pool.number()) + " ready";
  TopLine first = {
      {pool.name() + "  ", Style::kHead, 0},
      {counts, ready >= pool.number() ? Style::kGood : Style::kBad, 0},
      {"  version ", Style::kPlain, 0},
      {std::to_string(pool.version()), Style::kVersion, pool.version()},
      {"  master " + std::to_string(pool.master_pid()) +
           (pool.guard_pid() > 0 ? "  guard " + std::to_string(pool.guard_pid()) : "  no guard") +
           "  " + clock_text(now),
       Style::kPlain, 0}};
  if (pool.stopping()) {
    first.push_back({"  going down", Style::kBad, 0});
  } else if (pool.failed()) {
    first.push_back({"  failed", Style::kBad, 0});
  }
  std::uint64_t memory = 0;
  double cpu = 0;
  std::size_t busy = 0;
  for (const auto& [epoch, worker] : pool.workers()) {
    memory += worker.rss;
    cpu += worker.cpu_percent;
    busy += worker.busy ? 1U : 0U;
  }
  const std::uint64_t waiting = pool.samples().empty() ? 0 : pool.samples().back().waiting;
  TopLine second = {{"workers " + std::to_string(pool.workers().size()) + "  memory " +
                         bytes_text(memory) + "  CPU " + fixed(cpu, 1) + "%  busy " +
                         std::to_string(busy) + "  waiting " + std::to_string(waiting) +
                         "  crashes " + std::to_string(pool.counters().crashed),
                     Style::kPlain, 0}};
  TopLine third;
  if (down) {
    third.push_back({"no master: " + pool.error() + "; trying again", Style::kBad, 0});
  } else if (!settings.notice.empty()) {
    third.push_back({settings.notice, Style::kWarning, 0});
  } else {
    third.push_back({upgrade_text(pool), Style::kPlain, 0});
  }
  return {std::move(first), std::move(second), std::move(third)};
}

std::vector<TopLine> help_lines() {
  std::vector<TopLine> lines;
  for (const std::string_view text :
       {"", "  i p v s a m c b n g   sort by index, pid, version, state, age, memory, CPU, busy,",
        "                        requests, last ping; the same key again turns it round",
        "  < >                   sort by the column to the left, to the right",
        "  arrows, Page keys     scroll; Home, End",
        "  w                     workers and waterfall, only workers, only the waterfall",
        "  + -                   a longer or shorter waterfall: 1, 5, 15, 60 minutes",
        "  h ?                   this text, and back", "  q                     leave", "",
        "  Waterfall:  .... starting   0123 ready, the last digit of its version",
        "              ---- stopping   | gone   X crashed"}) {
    lines.push_back({{std::string(text), Style::kPlain, 0}});
  }
  return lines;
}

std::vector<const WorkerView*> sorted(const PoolModel& pool, const TopSettings& settings) {
  std::vector<const WorkerView*> workers;
  for (const auto& [epoch, worker] : pool.workers()) {
    workers.push_back(&worker);
  }
  std::stable_sort(
      workers.begin(), workers.end(), [&settings](const WorkerView* one, const WorkerView* other) {
        const double left = key_of(*one, settings.sort);
        const double right = key_of(*other, settings.sort);
        if (left != right) {
          return settings.reversed ? left > right : left < right;
        }
        return one->slot != other->slot ? one->slot < other->slot : one->epoch < other->epoch;
      });
  return workers;
}

void cut(TopLine& line, std::size_t columns) {
  std::size_t left = columns;
  for (TopSpan& span : line) {
    span.text.resize(std::min(span.text.size(), left));
    for (char& letter : span.text) {
      letter = letter < ' ' || letter > '~' ? '?' : letter;
    }
    left -= span.text.size();
  }
}

struct Rows {
  std::size_t workers = 0;  // without the line above them
  std::size_t waterfall = 0;
};

Rows rows_of(const TopSettings& settings, std::size_t rows) {
  if (rows <= kHeaderLines + 1) {
    return {};
  }
  const std::size_t body = rows - kHeaderLines - 1;
  const bool small = rows < kLeastForBoth;
  switch (settings.layout) {
    case TopLayout::kWaterfall:
      return {0, body};
    case TopLayout::kBoth:
      if (!small) {
        const std::size_t waterfall = body * 2 / 5;
        return {body - waterfall - 1, waterfall};
      }
      return {body - 1, 0};
    case TopLayout::kWorkers:
    case TopLayout::kHelp:
      return {body - 1, 0};
  }
  return {};
}

}  // namespace

Duration step_window(Duration window, bool longer) {
  const auto* found = std::find(kWindows.begin(), kWindows.end(), window);
  const std::size_t at =
      found == kWindows.end() ? 1 : static_cast<std::size_t>(found - kWindows.begin());
  return longer ? kWindows.at(std::min(at + 1, kWindows.size() - 1))
                : kWindows.at(at == 0 ? 0 : at - 1);
}

bool column_of(char key, TopColumn& column) {
  for (const Column& each : kColumns) {
    if (each.key == key) {
      column = each.id;
      return true;
    }
  }
  return false;
}

TopColumn next_column(TopColumn column, bool right) {
  const auto at = static_cast<std::size_t>(column);
  const std::size_t next = right ? std::min(at + 1, kColumns.size() - 1) : (at == 0 ? 0 : at - 1);
  return kColumns.at(next).id;
}

std::size_t top_page(const TopSettings& settings, std::size_t rows) {
  return std::max<std::size_t>(1, rows_of(settings, rows).workers);
}

std::vector<TopLine> draw_top(const PoolModel& pool, TopSettings& settings, std::size_t rows,
                              std::size_t columns, double now) {
  std::vector<TopLine> lines = header(pool, settings, now);
  Rows parts = rows_of(settings, rows);
  if (parts.waterfall > 0 && parts.workers > pool.workers().size()) {
    // Room that no worker needs; one line stays empty.
    parts.waterfall += parts.workers - pool.workers().size() - 1;
    parts.workers = pool.workers().size() + 1;
  }
  std::string below =
      "q leave  h help  w view  + - " +
      std::to_string(std::chrono::duration_cast<std::chrono::minutes>(settings.window).count()) +
      " min";
  if (settings.layout == TopLayout::kHelp) {
    for (TopLine& line : help_lines()) {
      lines.push_back(std::move(line));
    }
  } else if (parts.workers > 0) {
    const std::vector<const WorkerView*> workers = sorted(pool, settings);
    const std::size_t most = workers.size() > parts.workers ? workers.size() - parts.workers : 0;
    settings.scroll = std::min(settings.scroll, most);
    lines.push_back(head_line(settings));
    const std::size_t end = std::min(settings.scroll + parts.workers, workers.size());
    for (std::size_t i = settings.scroll; i < end; ++i) {
      lines.push_back(worker_line(*workers[i], now));
    }
    if (most > 0) {
      below += "  workers " + std::to_string(settings.scroll + 1) + " to " + std::to_string(end) +
               " of " + std::to_string(workers.size());
    }
  }
  if (settings.layout != TopLayout::kHelp && parts.waterfall > 0) {
    lines.resize(std::max(lines.size(), rows - 1 - parts.waterfall));
    for (TopLine& line : draw_waterfall(pool, settings.window, parts.waterfall, columns, now)) {
      lines.push_back(std::move(line));
    }
  }
  lines.resize(std::max<std::size_t>(rows, 1) - 1);
  if (rows > 0) {
    lines.push_back({{below, Style::kDim, 0}});
  }
  for (TopLine& line : lines) {
    cut(line, columns);
  }
  return lines;
}

std::string text_of_line(const TopLine& line) {
  std::string text;
  for (const TopSpan& span : line) {
    text += span.text;
  }
  return text;
}

}  // namespace einhorn::shell
