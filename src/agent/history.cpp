#include "agent/history.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "wire/json_line.h"

namespace einhorn::agent {
namespace {

constexpr Duration kGathered = std::chrono::seconds{1};
constexpr Duration kFirstPause = std::chrono::milliseconds{200};
constexpr Duration kMostPause = std::chrono::seconds{5};
constexpr std::chrono::minutes kExpireEvery{10};
constexpr std::chrono::seconds kGoodbye{5};

Cell time_cell(double at) { return at > 0 ? Cell(at) : Cell(); }

Cell text_cell(const std::string& text) { return text.empty() ? Cell() : Cell(text); }

Cell number_cell(const wire::Value& event, std::string_view key) {
  return event.find(key) == nullptr ? Cell() : Cell(integer_of(event, key));
}

void write_cell(wire::JsonLine& line, const std::string& name, const Cell& cell) {
  if (const auto* integer = std::get_if<std::int64_t>(&cell)) {
    line.field(name, *integer);
  } else if (const auto* real = std::get_if<double>(&cell)) {
    line.field(name, from_seconds(*real));
  } else if (const auto* text = std::get_if<std::string>(&cell)) {
    line.field(name, *text);
  } else {
    line.null_field(name);
  }
}

}  // namespace

History::History(HistoryOptions options, std::function<void(std::string)> warn)
    : options_(std::move(options)),
      warn_(std::move(warn)),
      store_(make_store(options_.where, false)),
      reader_(make_store(options_.where, true)) {}

Status History::open() {
  if (Status opened = store_->open(); !opened) {
    if (!is_postgresql(options_.where)) {
      return opened;
    }
    broken_ = true;
    warn_(opened.error().message() + "; what comes waits for it");
  }
  thread_ = std::thread([this] { work(); });
  return Ok{};
}

History::~History() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

std::uint64_t History::dropped() const {
  const std::lock_guard lock(mutex_);
  return dropped_;
}

std::uint64_t History::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_.size();
}

void History::add(Row row) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= kMostWaiting) {
    waiting_.pop_front();
    ++dropped_;
  }
  waiting_.push_back(std::move(row));
}

void History::work() {
  Duration pause = kFirstPause;
  auto expire_at = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point leave_by{};
  std::unique_lock lock(mutex_);
  for (;;) {
    if (leaving_ && leave_by == std::chrono::steady_clock::time_point{}) {
      leave_by = std::chrono::steady_clock::now() + kGoodbye;
    }
    const bool written = waiting_.empty() || write_batch(lock);
    if (leaving_ && (waiting_.empty() || std::chrono::steady_clock::now() > leave_by)) {
      return;
    }
    if (written && std::chrono::steady_clock::now() >= expire_at) {
      expire_at = std::chrono::steady_clock::now() + kExpireEvery;
      lock.unlock();
      static_cast<void>(
          store_->expire(wall_seconds() - to_seconds(options_.keep_age), options_.keep_bytes)
              .has_value());
      lock.lock();
    }
    pause = written ? kFirstPause : std::min(pause * 2, kMostPause);
    if (waiting_.size() < kMostBatch || !written) {
      const bool leaving = leaving_;
      const Duration rest = leaving ? kFirstPause : written ? kGathered : pause;
      wake_.wait_for(lock, rest, [&] { return leaving_ != leaving || hurry_; });
      hurry_ = false;
    }
  }
}

bool History::write_batch(std::unique_lock<std::mutex>& lock) {
  const std::size_t count = std::min(waiting_.size(), kMostBatch);
  std::vector<Row> batch(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(count));
  const std::uint64_t dropped = dropped_;
  lock.unlock();
  Status written = store_->write(batch);
  lock.lock();
  if (!written) {
    if (!std::exchange(broken_, true)) {
      warn_(written.error().message() + "; trying again, what comes waits");
    }
    return false;
  }
  if (std::exchange(broken_, false)) {
    warn_("history is written again");
  }
  // Of what was written some may have been dropped meanwhile, from the front.
  const std::uint64_t gone = std::min<std::uint64_t>(dropped_ - dropped, count);
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(count - gone));
  return true;
}

void History::on_line(const Incoming& incoming) {
  if (incoming.name == "sample") {
    add_sample(incoming);
    return;
  }
  if (incoming.name == "snapshot") {
    add_start(incoming);
    return;
  }
  const std::int64_t n = integer_of(incoming.event, "n");
  if (n <= 0) {
    return;
  }
  const PoolModel& pool = incoming.pool;
  add({Table::kEvents,
       {options_.host, pool.name(), pool.stream(), n, real_of(incoming.event, "at"),
        std::string(incoming.name), number_cell(incoming.event, "epoch"),
        number_cell(incoming.event, "version"), std::string(incoming.line)}});
  if (pool.just_ended() != nullptr) {
    add_life(incoming);
  }
  if (incoming.name == "upgraded" || incoming.name == "rolled_back" ||
      incoming.name == "upgrade_failed" || incoming.name == "rollback_incomplete") {
    add_upgrade(incoming);
  }
}

// Where a stream begins for us is written at once: from there on nothing is lost, as the masters
// are asked for what came after it.
void History::add_start(const Incoming& incoming) {
  const PoolModel& pool = incoming.pool;
  wire::JsonLine line;
  line.field("event", "snapshot").field("missed", integer_of(incoming.event, "missed"));
  std::string data = line.take();
  data.pop_back();
  add({Table::kEvents,
       {options_.host, pool.name(), pool.stream(), integer_of(incoming.event, "after"),
        real_of(incoming.event, "at"), std::string(incoming.name), Cell(), Cell(), data}});
  {
    const std::lock_guard lock(mutex_);
    hurry_ = true;
  }
  wake_.notify_all();
}

void History::add_life(const Incoming& incoming) {
  const WorkerView& life = *incoming.pool.just_ended();
  std::string lines;
  for (const auto* part : {&life.stack, &life.lines}) {
    for (const std::string& line : *part) {
      lines += line + "\n";
    }
  }
  add({Table::kLives,
       {options_.host, incoming.pool.name(), incoming.pool.stream(),
        static_cast<std::int64_t>(life.epoch), life.slot, life.pid, life.version,
        time_cell(life.spawned_at), time_cell(life.ready_at), time_cell(life.stopping_at),
        time_cell(life.ended_at), text_cell(life.how), text_cell(life.stage),
        life.status ? Cell(std::int64_t{*life.status}) : Cell(), text_cell(life.killed_by),
        std::int64_t{life.crashed() ? 1 : 0}, text_cell(lines)}});
}

void History::add_upgrade(const Incoming& incoming) {
  const auto& upgrade = incoming.pool.upgrade();
  if (!upgrade) {
    return;
  }
  const double started = upgrade->started_at > 0 ? upgrade->started_at : upgrade->ended_at;
  add({Table::kUpgrades,
       {options_.host, incoming.pool.name(), incoming.pool.stream(),
        integer_of(incoming.event, "n"), upgrade->from, upgrade->to, text_cell(upgrade->kind),
        time_cell(started), time_cell(upgrade->ended_at), text_cell(upgrade->outcome),
        text_cell(upgrade->reason)}});
}

void History::add_sample(const Incoming& incoming) {
  if (incoming.pool.samples().empty()) {
    return;
  }
  const PoolSample& sample = incoming.pool.samples().back();
  add({Table::kSamples,
       {options_.host, incoming.pool.name(), incoming.pool.stream(), sample.at,
        static_cast<std::int64_t>(sample.number), static_cast<std::int64_t>(sample.ready),
        static_cast<std::int64_t>(sample.rss), sample.cpu_percent,
        static_cast<std::int64_t>(sample.waiting),
        sample.requests ? Cell(*sample.requests) : Cell()}});
}

std::optional<History::Position> History::last_of(const std::string& pool) {
  if (!reader_->open()) {
    return std::nullopt;
  }
  const Result<Rows> rows = reader_->query(
      "SELECT stream, n FROM events WHERE host = $1 AND pool = $2 ORDER BY at DESC, n DESC LIMIT 1",
      {options_.host, pool}, 1);
  if (!rows || rows->rows.empty()) {
    return std::nullopt;
  }
  const auto* stream = std::get_if<std::string>(&rows->rows[0][0]);
  const auto* number = std::get_if<std::int64_t>(&rows->rows[0][1]);
  if (stream == nullptr || number == nullptr) {
    return std::nullopt;
  }
  return Position{*stream, static_cast<std::uint64_t>(*number)};
}

Result<std::string> History::ask(const HistoryQuestion& question) {
  struct Kind {
    std::string_view name;
    std::string_view table;
    std::string_view time;
    std::string_view more;
  };
  constexpr std::array<Kind, 5> kKinds = {{{"events", "events", "at", ""},
                                           {"lives", "lives", "ended_at", ""},
                                           {"crashes", "lives", "ended_at", " AND crashed = 1"},
                                           {"samples", "samples", "at", ""},
                                           {"upgrades", "upgrades", "started_at", ""}}};
  const auto* found = std::find_if(kKinds.begin(), kKinds.end(), [&question](const Kind& each) {
    return each.name == question.kind;
  });
  if (found == kKinds.end()) {
    return make_error("kind " + question.kind,
                      "it must be events, lives, crashes, samples or upgrades");
  }
  const std::string time(found->time);
  Cells parameters = {question.pool, question.from, question.to};
  std::string what = "*";
  std::string group;
  if (found->table == "samples" && question.step > 0) {
    // Of each step what an operator must not overlook.
    what =
        "min(at) AS at, min(number) AS number, min(ready) AS ready, max(rss) AS rss, "
        "max(cpu_percent) AS cpu_percent, max(waiting) AS waiting, max(requests) AS requests";
    group = " GROUP BY CAST(at / " + std::to_string(question.step) + " AS BIGINT)";
  }
  std::string sql = "SELECT " + what + " FROM " + std::string(found->table) +
                    " WHERE pool = $1 AND " + time + " >= $2 AND " + time + " <= $3" +
                    std::string(found->more);
  if (!question.host.empty()) {
    parameters.emplace_back(question.host);
    sql += " AND host = $" + std::to_string(parameters.size());
  }
  if (question.epoch > 0 && (found->table == "events" || found->table == "lives")) {
    parameters.emplace_back(question.epoch);
    sql += " AND epoch = $" + std::to_string(parameters.size());
  }
  sql += group + " ORDER BY " + (group.empty() ? time : "1") + " DESC LIMIT " +
         std::to_string(question.limit);
  Result<Rows> rows = reader_->query(sql, parameters, question.limit);
  if (!rows) {
    if (Status opened = reader_->open(); !opened) {
      return opened.error();
    }
    rows = reader_->query(sql, parameters, question.limit);
  }
  if (!rows) {
    return rows.error();
  }
  std::string text = "[";
  for (const Cells& cells : rows->rows) {
    wire::JsonLine line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      write_cell(line, rows->names[i], cells[i]);
    }
    std::string object = line.take();
    object.pop_back();
    text += (text.size() > 1 ? "," : "") + object;
  }
  return text + "]\n";
}

}  // namespace einhorn::agent
