// `einhorn-agent sql` and `einhorn-agent history`.
#include <time.h>

#include <array>
#include <charconv>
#include <cstdio>

#include "agent/history.h"
#include "agent/options.h"
#include "base/numbers.h"
#include "wire/json.h"

namespace einhorn::agent {
namespace {

constexpr std::size_t kMostRows = 1'000'000;

int fail(const Error& error) {
  std::fprintf(stderr, "einhorn-agent: %s\n", error.message().c_str());
  return 1;
}

std::string text_of(const Cell& cell) {
  if (const auto* integer = std::get_if<std::int64_t>(&cell)) {
    return std::to_string(*integer);
  }
  if (const auto* real = std::get_if<double>(&cell)) {
    std::array<char, 64> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), *real,
                                   std::chars_format::fixed);
    return {buffer.data(), end.ptr};
  }
  const auto* text = std::get_if<std::string>(&cell);
  std::string out;
  for (const char letter : text != nullptr ? *text : std::string()) {
    // One row is one line, and what a worker said does not move the cursor.
    if (letter == '\n' || letter == '\t') {
      out += letter == '\n' ? "\\n" : "\\t";
    } else if (static_cast<unsigned char>(letter) >= 0x20 && letter != 0x7f) {
      out += letter;
    }
  }
  return out;
}

int print(const Rows& rows) {
  std::string text;
  for (std::size_t i = 0; i < rows.names.size(); ++i) {
    text += (i == 0 ? "" : "\t") + rows.names[i];
  }
  text += "\n";
  for (const Cells& cells : rows.rows) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      text += (i == 0 ? "" : "\t") + text_of(cells[i]);
    }
    text += "\n";
  }
  std::fputs(text.c_str(), stdout);
  return std::fflush(stdout) == 0 ? 0 : 1;
}

std::string when(const Cell& cell) {
  const auto* at = std::get_if<double>(&cell);
  if (at == nullptr) {
    return "-";
  }
  const auto seconds = static_cast<time_t>(*at);
  tm parts{};
  std::array<char, 32> buffer{};
  gmtime_r(&seconds, &parts);
  strftime(buffer.data(), buffer.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return buffer.data();
}

// With --capture the last lines of a worker come in an event of their own, behind its end: they go
// where those without stand.
void join_output(Rows& rows) {
  if (rows.names.empty() || rows.names.back() != "output") {
    return;
  }
  rows.names.pop_back();
  for (Cells& cells : rows.rows) {
    const auto* data = std::get_if<std::string>(&cells.back());
    const Result<wire::Value> event = wire::parse_json(data != nullptr ? *data : std::string());
    cells.pop_back();
    const wire::Value* lines = event ? event->find("lines") : nullptr;
    if (lines == nullptr || lines->as_list() == nullptr) {
      continue;
    }
    const auto* before = std::get_if<std::string>(&cells.back());
    std::string joined = before != nullptr ? *before : "";
    for (const wire::Value& line : *lines->as_list()) {
      joined += (line.as_string() != nullptr ? *line.as_string() : "") + "\n";
    }
    cells.back() = joined;
  }
}

struct Question {
  std::string_view kind;
  std::string_view sql;  // $1 the earliest time, $2 a pool or ''
};

// Times come first, so that `when` finds them.
constexpr std::array<Question, 3> kQuestions = {
    {{"upgrades",
      "SELECT started_at, ended_at, host, pool, from_version, to_version, kind, outcome, "
      "ended_at - started_at AS seconds, reason FROM upgrades WHERE started_at >= $1 AND ($2 = '' "
      "OR pool = $2) ORDER BY started_at DESC"},
     {"crashes",
      "SELECT ended_at, spawned_at, host, pool, slot, pid, version, stage, how, "
      "ended_at - spawned_at AS lived, lines, (SELECT data FROM events WHERE event = "
      "'last_output' AND events.at BETWEEN ended_at AND ended_at + 60 AND events.host = lives.host "
      "AND events.pool = lives.pool AND events.stream = lives.stream AND events.epoch = "
      "lives.epoch LIMIT 1) AS output FROM lives WHERE crashed = 1 AND ended_at >= $1 AND "
      "($2 = '' OR pool = $2) ORDER BY ended_at DESC"},
     {"events",
      "SELECT at, host, pool, n, event, data FROM events WHERE at >= $1 AND ($2 = '' OR pool = $2) "
      "ORDER BY at DESC, n DESC"}}};

}  // namespace

int run_sql(const std::string& where, const std::vector<std::string>& words) {
  if (words.size() != 1) {
    return fail(make_error("sql", "it takes one text: einhorn-agent sql 'SELECT ...'"));
  }
  const std::unique_ptr<Store> store = make_store(where, true);
  if (Status opened = store->open(); !opened) {
    return fail(opened.error());
  }
  const Result<Rows> rows = store->query(words[0], {}, kMostRows);
  return rows ? print(*rows) : fail(rows.error());
}

int run_history(const std::string& where, const std::vector<std::string>& words) {
  const Question* question = nullptr;
  std::string pool;
  double since = 0;
  std::size_t limit = 1000;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--since" || words[i] == "--limit") {
      const std::string& name = words[i];
      if (++i == words.size()) {
        return fail(make_error("history " + name, "a value is missing"));
      }
      if (name == "--since") {
        const Result<Duration> age = parse_duration(words[i]);
        if (!age) {
          return fail(
              make_error("history --since " + words[i], "it must be a time: 90, 30s, 5m, 12h, 7d"));
        }
        since = wall_seconds() - to_seconds(*age);
      } else {
        limit = whole_number<decltype(limit)>(words[i]).value_or(0);
        if (limit == 0) {
          return fail(make_error("history --limit " + words[i], "it must be a number from 1 on"));
        }
      }
    } else if (question == nullptr) {
      for (const Question& each : kQuestions) {
        question = each.kind == words[i] ? &each : question;
      }
      if (question == nullptr) {
        return fail(make_error("history " + words[i], "it must be upgrades, crashes or events"));
      }
    } else if (pool.empty()) {
      pool = words[i];
    } else {
      return fail(make_error("history", "more than one name: " + pool + " and " + words[i]));
    }
  }
  if (question == nullptr) {
    return fail(make_error("history", "say which: upgrades, crashes or events"));
  }
  const std::unique_ptr<Store> store = make_store(where, true);
  if (Status opened = store->open(); !opened) {
    return fail(opened.error());
  }
  Result<Rows> rows = store->query(std::string(question->sql) + " LIMIT " + std::to_string(limit),
                                   {since, pool}, limit);
  if (!rows) {
    return fail(rows.error());
  }
  join_output(*rows);
  for (Cells& cells : rows->rows) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (rows->names[i] == "at" || rows->names[i].ends_with("_at")) {
        cells[i] = when(cells[i]);
      }
    }
  }
  return print(*rows);
}

}  // namespace einhorn::agent
