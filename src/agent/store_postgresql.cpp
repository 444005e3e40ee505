// History in PostgreSQL, for many hosts in one database.
//
// A batch is one transaction. If the connection is lost while it is committed nobody knows whether
// it was: it is written again, and what is there already stays as it is.
#include <array>
#include <cstdlib>
#include <libpq-fe.h>

#include "agent/store.h"

namespace einhorn::agent {
namespace {

using Outcome = std::unique_ptr<PGresult, decltype(&PQclear)>;

constexpr std::size_t kRowsAStatement = 200;

// "postgresql://user:secret@host/db" without the secret, for messages.
std::string without_secret(const std::string& url) {
  const std::size_t at = url.find('@');
  const std::size_t begin = url.find("://");
  const std::size_t colon = begin == std::string::npos ? begin : url.find(':', begin + 3);
  if (at == std::string::npos || colon == std::string::npos || colon > at) {
    return url.substr(0, url.find('?'));
  }
  return url.substr(0, colon) + url.substr(at, url.find('?') - at);
}

std::string text_of_real(double value) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.17g", value);
  return buffer.data();
}

class PostgresqlStore final : public Store {
 public:
  PostgresqlStore(std::string url, bool read_only) : url_(std::move(url)), read_only_(read_only) {}
  ~PostgresqlStore() override { PQfinish(connection_); }

  Status open() override {
    PQfinish(connection_);
    const std::array<const char*, 5> keys = {"dbname", "connect_timeout", "application_name",
                                             "tcp_user_timeout", nullptr};
    const std::array<const char*, 5> values = {url_.c_str(), "5", "einhorn-agent", "10000",
                                               nullptr};
    connection_ = PQconnectdbParams(keys.data(), values.data(), 1);
    if (PQstatus(connection_) != CONNECTION_OK) {
      return fail("connect to");
    }
    PQsetNoticeProcessor(
        connection_, [](void*, const char*) {}, nullptr);
    if (read_only_) {
      return run("SET default_transaction_read_only = on");
    }
    return make_tables();
  }

  Status write(const std::vector<Row>& rows) override {
    if (PQstatus(connection_) != CONNECTION_OK) {
      if (Status opened = open(); !opened) {
        return opened;
      }
    }
    if (Status begun = run("BEGIN"); !begun) {
      return begun;
    }
    for (std::size_t i = 0; i < kTables; ++i) {
      if (Status inserted = insert(static_cast<Table>(i), rows); !inserted) {
        static_cast<void>(run("ROLLBACK").has_value());
        return inserted;
      }
    }
    return run("COMMIT");
  }

  // Space that was freed is used again after PostgreSQL's own vacuum; only age counts here.
  Status expire(double before, std::uint64_t /*most_bytes*/) override {
    const std::string cutoff = text_of_real(before);
    for (const char* what : {"events WHERE at < ", "lives WHERE ended_at < ", "samples WHERE at < ",
                             "upgrades WHERE started_at < "}) {
      if (Status gone = run("DELETE FROM " + std::string(what) + cutoff); !gone) {
        return gone;
      }
    }
    return Ok{};
  }

  Result<Rows> query(const std::string& sql, const Cells& parameters,
                     std::size_t most_rows) override {
    if (PQstatus(connection_) != CONNECTION_OK) {
      if (Status opened = open(); !opened) {
        return opened.error();
      }
    }
    if (Status begun = run("BEGIN READ ONLY"); !begun) {
      return begun.error();
    }
    Result<Rows> rows = ask(sql, parameters, most_rows);
    static_cast<void>(run("ROLLBACK").has_value());
    return rows;
  }

 private:
  Status make_tables() {
    // Two agents that start at once: one waits for the other.
    if (Status begun = run("BEGIN; SELECT pg_advisory_xact_lock(725170121)"); !begun) {
      return begun;
    }
    for (std::size_t i = 0; i < kTables; ++i) {
      const Columns& columns = columns_of(static_cast<Table>(i));
      const std::string name(columns.name);
      constexpr std::array<const char*, kTables> kTimes = {"at", "ended_at", "at", "started_at"};
      Status made =
          run("CREATE TABLE IF NOT EXISTS " + name + " (" + std::string(columns.definition) + ")");
      if (made) {
        made = run("CREATE INDEX IF NOT EXISTS " + name + "_by_time ON " + name + " (" +
                   kTimes.at(i) + ")");
      }
      if (!made) {
        static_cast<void>(run("ROLLBACK").has_value());
        return made;
      }
    }
    for (const AddedColumn& added : added_columns()) {
      if (Status made = run("ALTER TABLE " + std::string(columns_of(added.table).name) +
                            " ADD COLUMN IF NOT EXISTS " + std::string(added.name) + " " +
                            std::string(added.type));
          !made) {
        static_cast<void>(run("ROLLBACK").has_value());
        return made;
      }
    }
    return run("COMMIT");
  }

  Status insert(Table table, const std::vector<Row>& rows) {
    const Columns& columns = columns_of(table);
    const std::string head = "INSERT INTO " + std::string(columns.name) + " (" +
                             std::string(columns.columns) + ") VALUES ";
    std::string sql;
    std::size_t count = 0;
    const auto flush = [&]() -> Status {
      if (count == 0) {
        return Ok{};
      }
      count = 0;
      return run(std::exchange(sql, {}) + " ON CONFLICT DO NOTHING");
    };
    for (const Row& row : rows) {
      if (row.table != table) {
        continue;
      }
      sql += count == 0 ? head + "(" : ",(";
      for (std::size_t i = 0; i < row.cells.size(); ++i) {
        sql += (i == 0 ? "" : ",") + literal(row.cells[i]);
      }
      sql += ")";
      if (++count == kRowsAStatement) {
        if (Status written = flush(); !written) {
          return written;
        }
      }
    }
    return flush();
  }

  std::string literal(const Cell& cell) {
    if (const auto* integer = std::get_if<std::int64_t>(&cell)) {
      return std::to_string(*integer);
    }
    if (const auto* real = std::get_if<double>(&cell)) {
      return text_of_real(*real);
    }
    const auto* text = std::get_if<std::string>(&cell);
    if (text == nullptr) {
      return "NULL";
    }
    std::string plain = *text;
    std::erase(plain, '\0');  // no text of PostgreSQL's holds one
    char* quoted = PQescapeLiteral(connection_, plain.data(), plain.size());
    if (quoted == nullptr) {
      return "NULL";
    }
    std::string result = quoted;
    PQfreemem(quoted);
    return result;
  }

  Result<Rows> ask(const std::string& sql, const Cells& parameters, std::size_t most_rows) {
    std::vector<std::string> texts;
    for (const Cell& cell : parameters) {
      if (const auto* integer = std::get_if<std::int64_t>(&cell)) {
        texts.push_back(std::to_string(*integer));
      } else if (const auto* real = std::get_if<double>(&cell)) {
        texts.push_back(text_of_real(*real));
      } else if (const auto* text = std::get_if<std::string>(&cell)) {
        texts.push_back(*text);
      } else {
        texts.emplace_back();
      }
    }
    std::vector<const char*> values;
    values.reserve(texts.size());
    for (const std::string& text : texts) {
      values.push_back(text.c_str());
    }
    // With parameters, also without any, the text is one statement and no more.
    const Outcome outcome(PQexecParams(connection_, sql.c_str(), static_cast<int>(values.size()),
                                       nullptr, values.data(), nullptr, nullptr, 0),
                          &PQclear);
    if (PQresultStatus(outcome.get()) != PGRES_TUPLES_OK) {
      return make_error("sql", message(PQresultErrorMessage(outcome.get())));
    }
    Rows found;
    const int columns = PQnfields(outcome.get());
    for (int i = 0; i < columns; ++i) {
      found.names.emplace_back(PQfname(outcome.get(), i));
    }
    const int rows = PQntuples(outcome.get());
    for (int row = 0; row < rows && found.rows.size() < most_rows; ++row) {
      Cells cells;
      for (int i = 0; i < columns; ++i) {
        cells.push_back(cell_of(outcome.get(), row, i));
      }
      found.rows.push_back(std::move(cells));
    }
    return found;
  }

  static Cell cell_of(PGresult* outcome, int row, int column) {
    if (PQgetisnull(outcome, row, column) != 0) {
      return std::monostate{};
    }
    const std::string text = PQgetvalue(outcome, row, column);
    switch (PQftype(outcome, column)) {
      case 20:  // int8, int4, int2
      case 23:
      case 21:
        return std::int64_t{std::strtoll(text.c_str(), nullptr, 10)};
      case 700:  // float4, float8, numeric
      case 701:
      case 1700:
        return std::strtod(text.c_str(), nullptr);
      default:
        return text;
    }
  }

  Status run(const std::string& sql) {
    const Outcome outcome(PQexec(connection_, sql.c_str()), &PQclear);
    const ExecStatusType status = PQresultStatus(outcome.get());
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? Status(Ok{})
                                                                   : Status(fail("write to"));
  }

  static std::string message(const char* text) {
    std::string line = text != nullptr ? text : "";
    line.resize(std::min(line.find('\n'), line.size()));
    return line;
  }

  Error fail(const std::string& what) {
    return make_error(what + " history " + without_secret(url_),
                      message(PQerrorMessage(connection_)));
  }

  std::string url_;
  bool read_only_;
  PGconn* connection_ = nullptr;
};

}  // namespace

std::unique_ptr<Store> make_postgresql_store(const std::string& url, bool read_only) {
  return std::make_unique<PostgresqlStore>(url, read_only);
}

}  // namespace einhorn::agent
