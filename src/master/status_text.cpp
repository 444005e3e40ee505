// `status`: one screen for people.
#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "master/report.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

constexpr std::size_t kLineWidth = 100;
constexpr std::size_t kMostWorkers = 60;   // all of them are shown up to here,
constexpr std::size_t kFirstWorkers = 50;  // and of more only these
constexpr std::size_t kMostSockets = 12;
constexpr std::size_t kFirstSockets = 10;
constexpr std::size_t kMostReports = 4;

// "45s", "3m12s", "2h05m", "3d04h".
std::string age(Duration duration) {
  const std::int64_t seconds =
      std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(duration).count());
  const std::int64_t minutes = seconds / 60;
  const std::int64_t hours = minutes / 60;
  const auto pair = [](std::int64_t large, char large_unit, std::int64_t small, char small_unit) {
    const std::string digits = std::to_string(small);
    return std::to_string(large) + large_unit + (small < 10 ? "0" : "") + digits + small_unit;
  };
  if (minutes == 0) {
    return std::to_string(seconds) + 's';
  }
  if (hours == 0) {
    return pair(minutes, 'm', seconds % 60, 's');
  }
  if (hours < 24) {
    return pair(hours, 'h', minutes % 60, 'm');
  }
  return pair(hours / 24, 'd', hours % 24, 'h');
}

// "12.4M"; "-" for what is not known.
std::string memory(std::optional<std::uint64_t> bytes) {
  if (!bytes || *bytes == 0) {
    return "-";
  }
  constexpr std::array kUnits = {'K', 'M', 'G', 'T', 'P', 'E'};
  double value = static_cast<double>(*bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.1f%c", value, kUnits[unit]);
  return buffer.data();
}

// The text in at most `width` columns, without anything that could move the cursor.
std::string fit(std::string_view text, std::size_t width) {
  constexpr std::string_view kCut = "...";
  constexpr std::uint32_t kFirstPrintable = 0x20;
  constexpr std::uint32_t kDelete = 0x7f;
  constexpr std::uint32_t kLastControl = 0x9f;
  const bool cut = wire::text::count_characters(text) > width;
  const std::size_t room = cut ? width - std::min(width, kCut.size()) : width;
  std::string out;
  std::size_t columns = 0;
  for (std::size_t at = 0; at < text.size() && columns < room; ++columns) {
    const wire::text::CodePoint point = wire::text::decode_utf8(text, at);
    const bool control =
        point.code < kFirstPrintable || (point.code >= kDelete && point.code <= kLastControl);
    const bool odd = control || point.code == wire::text::CodePoint::kInvalid;
    out += odd ? "?" : text.substr(at, point.bytes);
    at += point.bytes;
  }
  return cut ? out + std::string(kCut.substr(0, std::min(width, kCut.size()))) : out;
}

std::string plural(std::uint64_t count, const std::string& singular) {
  return std::to_string(count) + ' ' + singular + (count == 1 ? "" : "s");
}

struct Column {
  std::string_view title;
  bool right = false;
};

constexpr std::array kColumns = {
    Column{"PID", true}, Column{"INDEX", true},  Column{"VERSION", true},   Column{"STATE"},
    Column{"AGE", true}, Column{"MEMORY", true}, Column{"LAST PING", true}, Column{"STATUS"},
};
using Row = std::array<std::string, kColumns.size()>;

// Every column as wide as its widest cell; what is too long for the line is cut.
std::string align(const std::vector<Row>& rows) {
  constexpr std::size_t kGap = 2;
  std::array<std::size_t, kColumns.size()> widths{};
  for (const Row& row : rows) {
    for (std::size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], wire::text::count_characters(row[column]));
    }
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t column = 0; column < row.size(); ++column) {
      const std::size_t length = wire::text::count_characters(row[column]);
      const std::string padding(widths[column] - length, ' ');
      line += std::string(column > 0 ? kGap : 0, ' ');
      line += kColumns[column].right ? padding + row[column] : row[column] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += fit(line, kLineWidth) + '\n';
  }
  return out;
}

class Screen {
 public:
  explicit Screen(const ReportInput& input) : input_(input) {}

  std::string draw() {
    add_head();
    add_target();
    add_trouble();
    add_sockets();
    add_zygotes();
    out_ += '\n';
    add_workers();
    return std::move(out_);
  }

 private:
  void line(const std::string& text) { out_ += fit(text, kLineWidth) + '\n'; }

  static std::string process(const char* role, Pid pid, std::uint64_t resident) {
    if (pid == 0) {
      return std::string("no ") + role;
    }
    const std::string size = resident != 0 ? " (" + memory(resident) + ")" : "";
    return role + (' ' + std::to_string(pid)) + size;
  }

  void add_head() {
    const wire::Settings& settings = input_.settings;
    std::string text = "einhorn " EINHORN_VERSION;
    text += settings.name.empty() ? "" : "  " + settings.name;
    text += "  " + process("guard", input_.guard, input_.guard_resident);
    text += "  " + process("master", input_.master, input_.master_resident);
    if (settings.started_at) {
      text += "  up " + age(input_.now - *settings.started_at);
    }
    line(text);
  }

  void add_target() {
    const pool::Pool& pool = input_.pool;
    const pool::Ledger& ledger = pool.ledger();
    const std::string number = std::to_string(pool.config().number);
    std::string text = "workers " + std::to_string(pool.ready()) + '/' + number + " ready";
    if (ledger.upgrade) {
      const pool::UpgradeProgress& upgrade = *ledger.upgrade;
      text += ", version " + std::to_string(upgrade.from.value);
      text += upgrade.going_back ? ", going back to " : ", upgrading to ";
      text += std::to_string(upgrade.to.value) + ": " + std::to_string(pool.modern_ready());
      text += '/' + number;
    } else {
      text += ", version " + std::to_string(ledger.version.value);
    }
    if (const pool::Config& config = pool.config(); config.workers_max > 0) {
      text += ", scaled from " + std::to_string(config.workers_min) + " to " +
              std::to_string(config.workers_max);
    }
    text += ", " + plural(ledger.deaths, "restart");
    if (ledger.deaths_before_ack > 0) {
      text += " (" + std::to_string(ledger.deaths_before_ack) + " before ACK in a row)";
    }
    line(text);
  }

  void add_trouble() {
    const pool::Ledger& ledger = input_.pool.ledger();
    if (!ledger.respawn) {
      line("going down: workers that end are not replaced");
    }
    if (ledger.failed) {
      line("FAILED: too many deaths before ACK in a row, no worker is started any more");
    }
    if (!ledger.failure.empty()) {
      line("last failure: " + ledger.failure);
    }
    add_ailing();
    if (ledger.upgrade && ledger.upgrade->failures > 0) {
      line("failed new workers: " + std::to_string(ledger.upgrade->failures));
      const std::vector<std::string>& reports = ledger.upgrade->reports;
      for (std::size_t at = 0; at < std::min(reports.size(), kMostReports); ++at) {
        line("  " + reports[at]);
      }
    }
  }

  void add_ailing() {
    std::size_t shown = 0;
    for (const auto& [slot, trouble] : input_.pool.troubles()) {
      if (trouble.paused() && shown++ < kMostReports) {
        const std::string index = "PAUSED: index " + std::to_string(slot.value) + " is flapping";
        line(trouble.given_up ? index + " and was given up"
                              : index + ", next try in " +
                                    age(trouble.paused_until.value_or(input_.now) - input_.now) +
                                    " (retry " + std::to_string(trouble.retries) + ")");
      }
    }
    if (shown > kMostReports) {
      line("  ... and " + plural(shown - kMostReports, "more index") + " paused");
    }
    std::size_t ailing = 0;
    for (const pool::Worker* worker : input_.pool.workers()) {
      if (worker->ailment != pool::Ailment::kNone && ailing++ < kMostReports) {
        line((worker->condemned   ? "HUNG: worker "
              : worker->recycling ? "recycling worker "
                                  : "to be recycled: worker ") +
             std::to_string(input_.pid_of(worker->id)) + ": " + worker->complaint);
      }
    }
    if (ailing > kMostReports) {
      line("  ... and " + plural(ailing - kMostReports, "more worker"));
    }
    if (!input_.casualties.empty()) {
      const Casualty& last = input_.casualties.back();
      line("last taken out: worker " + std::to_string(last.pid) + ", " + age(input_.now - last.at) +
           " ago: " + last.complaint);
    }
  }

  void add_sockets() {
    const std::size_t count = input_.listeners.size();
    const std::size_t shown = count > kMostSockets ? kFirstSockets : count;
    std::size_t done = 0;
    for (const auto& [index, listener] : input_.listeners) {
      if (done++ == shown) {
        break;
      }
      const std::int64_t fd = std::int64_t{input_.settings.first_descriptor} + index;
      line("socket " + listener.address + "  fd " + std::to_string(fd) +
           (listener.name.empty() ? "" : "  " + listener.name) + queue(index));
    }
    if (count > shown) {
      line("... and " + plural(count - shown, "more socket"));
    }
  }

  // "  3 of 100 wait"; nothing where nobody does.
  [[nodiscard]] std::string queue(std::uint32_t index) const {
    const auto seen = input_.queue_of ? input_.queue_of(index) : std::nullopt;
    return seen && seen->waiting > 0 ? "  " + std::to_string(seen->waiting) + " of " +
                                           std::to_string(seen->limit) + " wait"
                                     : "";
  }

  void add_zygotes() {
    for (const ZygoteLine& zygote : input_.zygotes) {
      line("zygote " + std::to_string(zygote.pid) + "  version " +
           std::to_string(zygote.version.value) + (zygote.loaded ? "  loaded" : "  loading") +
           (zygote.status.empty() ? "" : "  " + zygote.status));
    }
  }

  // What it has, and how much of that is its own.
  [[nodiscard]] std::string memory_of(Pid pid) const {
    if (pid == 0) {
      return "-";
    }
    const auto shares = input_.shares_of ? input_.shares_of(pid) : std::nullopt;
    return memory(input_.resident_of(pid)) +
           (shares ? " (" + memory(shares->private_bytes) + " own)" : "");
  }

  [[nodiscard]] Row row(const pool::Worker& worker) const {
    const Pid pid = input_.pid_of(worker.id);
    std::string state(pool::name(worker.state));
    for (const int number : worker.signaled.numbers()) {
      state += ' ' + signal_name(number);
    }
    if (worker.hook != pool::Hook::kNone) {
      state += ' ' + std::string(pool::name(worker.hook));
    }
    return {pid != 0 ? std::to_string(pid) : "-",
            std::to_string(worker.id.slot.value),
            std::to_string(worker.version.value),
            std::move(state),
            age(input_.now - worker.spawned_at),
            memory_of(pid),
            worker.pinged_at ? age(input_.now - *worker.pinged_at) + " ago" : "-",
            worker.status_text};
  }

  void add_workers() {
    const std::vector<const pool::Worker*> workers = input_.pool.workers();
    if (workers.empty()) {
      line("no workers");
      return;
    }
    const std::size_t shown = workers.size() > kMostWorkers ? kFirstWorkers : workers.size();
    const bool any_status =
        std::any_of(workers.begin(), workers.begin() + static_cast<std::ptrdiff_t>(shown),
                    [](const pool::Worker* worker) { return !worker->status_text.empty(); });
    std::vector<Row> rows(1);
    for (std::size_t column = 0; column < kColumns.size(); ++column) {
      rows.front()[column] = kColumns[column].title;
    }
    if (!any_status) {
      rows.front().back().clear();
    }
    for (std::size_t at = 0; at < shown; ++at) {
      rows.push_back(row(*workers[at]));
    }
    out_ += align(rows);
    if (workers.size() > shown) {
      line("... and " + std::to_string(workers.size() - shown) + " more");
    }
  }

  const ReportInput& input_;
  std::string out_;
};

}  // namespace

std::string status_text(const ReportInput& input) { return Screen(input).draw(); }

}  // namespace einhorn::master
