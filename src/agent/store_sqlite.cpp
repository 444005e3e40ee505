// History in a SQLite file, with a write-ahead log: a kill -9 loses nothing that was written.
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <sqlite3.h>

#include "agent/store.h"

namespace einhorn::agent {
namespace {

using Statement = std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)>;

constexpr int kBusyMilliseconds = 5000;

void bind(sqlite3_stmt* statement, int index, const Cell& cell) {
  if (const auto* integer = std::get_if<std::int64_t>(&cell)) {
    sqlite3_bind_int64(statement, index, *integer);
  } else if (const auto* real = std::get_if<double>(&cell)) {
    sqlite3_bind_double(statement, index, *real);
  } else if (const auto* text = std::get_if<std::string>(&cell)) {
    sqlite3_bind_text64(statement, index, text->data(), text->size(), SQLITE_TRANSIENT,
                        SQLITE_UTF8);
  } else {
    sqlite3_bind_null(statement, index);
  }
}

Cell column(sqlite3_stmt* statement, int index) {
  switch (sqlite3_column_type(statement, index)) {
    case SQLITE_INTEGER:
      return std::int64_t{sqlite3_column_int64(statement, index)};
    case SQLITE_FLOAT:
      return sqlite3_column_double(statement, index);
    case SQLITE_NULL:
      return std::monostate{};
    default: {
      const auto* text = sqlite3_column_text(statement, index);
      return std::string(reinterpret_cast<const char*>(text),
                         static_cast<std::size_t>(sqlite3_column_bytes(statement, index)));
    }
  }
}

// What a query of somebody's may do: read the tables of this file, and compute.
int only_reading(void* /*store*/, int action, const char* /*first*/, const char* second,
                 const char* /*database*/, const char* /*trigger*/) {
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    case SQLITE_FUNCTION:
      return second != nullptr && std::string_view(second) == "load_extension" ? SQLITE_DENY
                                                                               : SQLITE_OK;
    default:
      return SQLITE_DENY;
  }
}

class SqliteStore final : public Store {
 public:
  SqliteStore(std::string path, bool read_only) : path_(std::move(path)), read_only_(read_only) {}
  ~SqliteStore() override { close(); }

  Status open() override {
    close();
    const int flags =
        read_only_ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    const mode_t old = ::umask(077);  // events may hold what not everybody should read
    const int opened = sqlite3_open_v2(path_.c_str(), &database_, flags, nullptr);
    ::umask(old);
    if (opened != SQLITE_OK) {
      const Error error = fail("open");
      close();
      return error;
    }
    sqlite3_busy_timeout(database_, kBusyMilliseconds);
    if (read_only_) {
      sqlite3_set_authorizer(database_, only_reading, nullptr);
      return Ok{};
    }
    return prepare_file();
  }

  Status write(const std::vector<agent::Row>& rows) override {
    if (database_ == nullptr) {
      return make_error("history " + path_, "not open");
    }
    if (Status begun = run("BEGIN IMMEDIATE"); !begun) {
      return begun;
    }
    for (const agent::Row& row : rows) {
      Status inserted = insert(row);
      if (!inserted) {
        static_cast<void>(run("ROLLBACK").has_value());
        return inserted;
      }
    }
    Status committed = run("COMMIT");
    if (!committed) {
      static_cast<void>(run("ROLLBACK").has_value());
    }
    return committed;
  }

  Status expire(double before, std::uint64_t most_bytes) override {
    const std::string cutoff = std::to_string(before);
    for (const auto& [table, time] : kTimes) {
      if (Status gone = run("DELETE FROM " + std::string(table) + " WHERE " + std::string(time) +
                            " < " + cutoff);
          !gone) {
        return gone;
      }
    }
    for (int i = 0; i < 20 && used_bytes() > most_bytes; ++i) {
      // A tenth of each, the oldest.
      for (const auto& [table, time] : kTimes) {
        const std::string name(table);
        if (Status gone = run("DELETE FROM " + name + " WHERE rowid IN (SELECT rowid FROM " + name +
                              " ORDER BY " + std::string(time) +
                              " LIMIT (SELECT count(*) / 10 + 1 FROM " + name + "))");
            !gone) {
          return gone;
        }
      }
    }
    static_cast<void>(run("PRAGMA incremental_vacuum").has_value());
    return run("PRAGMA wal_checkpoint(TRUNCATE)");
  }

  Result<Rows> query(const std::string& sql, const Cells& parameters,
                     std::size_t most_rows) override {
    if (database_ == nullptr) {
      return make_error("history " + path_, "not open");
    }
    sqlite3_stmt* raw = nullptr;
    const char* rest = nullptr;
    if (sqlite3_prepare_v2(database_, sql.c_str(), static_cast<int>(sql.size()), &raw, &rest) !=
        SQLITE_OK) {
      return sqlite3_errcode(database_) == SQLITE_AUTH
                 ? make_error("sql", "only SELECT is allowed")
                 : make_error("sql", sqlite3_errmsg(database_));
    }
    const Statement statement(raw, &sqlite3_finalize);
    if (statement == nullptr) {
      return make_error("sql", "there is no statement");
    }
    if (std::string_view(rest).find_first_not_of(" \t\r\n;") != std::string_view::npos) {
      return make_error("sql", "one statement at a time");
    }
    if (sqlite3_stmt_readonly(statement.get()) == 0) {
      return make_error("sql", "only SELECT is allowed");
    }
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      bind(statement.get(), static_cast<int>(i + 1), parameters[i]);
    }
    return step_through(statement.get(), most_rows);
  }

 private:
  static constexpr std::array<std::pair<std::string_view, std::string_view>, kTables> kTimes = {
      {{"events", "at"}, {"lives", "ended_at"}, {"samples", "at"}, {"upgrades", "started_at"}}};

  Status prepare_file() {
    for (const char* pragma : {"PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL",
                               "PRAGMA synchronous=NORMAL", "PRAGMA temp_store=MEMORY"}) {
      if (Status run_well = run(pragma); !run_well) {
        return run_well;
      }
    }
    for (std::size_t i = 0; i < kTables; ++i) {
      const Columns& columns = columns_of(static_cast<Table>(i));
      if (Status made = run("CREATE TABLE IF NOT EXISTS " + std::string(columns.name) + " (" +
                            std::string(columns.definition) + ")");
          !made) {
        return made;
      }
      const auto& [table, time] = kTimes.at(i);
      if (Status made = run("CREATE INDEX IF NOT EXISTS " + std::string(table) + "_by_time ON " +
                            std::string(table) + " (" + std::string(time) + ")");
          !made) {
        return made;
      }
    }
    return add_columns();
  }

  Status add_columns() {
    for (const AddedColumn& added : added_columns()) {
      const std::string table(columns_of(added.table).name);
      const std::string name(added.name);
      const Result<Rows> there =
          query("SELECT 1 FROM pragma_table_info($1) WHERE name = $2", {table, name}, 1);
      if (!there) {
        return there.error();
      }
      if (!there->rows.empty()) {
        continue;
      }
      if (Status made =
              run("ALTER TABLE " + table + " ADD COLUMN " + name + " " + std::string(added.type));
          !made) {
        return made;
      }
    }
    return Ok{};
  }

  static Result<Rows> rows_error(sqlite3* database) {
    return make_error("sql", sqlite3_errmsg(database));
  }

  Result<Rows> step_through(sqlite3_stmt* statement, std::size_t most_rows) {
    Rows found;
    const int count = sqlite3_column_count(statement);
    for (int i = 0; i < count; ++i) {
      found.names.emplace_back(sqlite3_column_name(statement, i));
    }
    int stepped = SQLITE_ROW;
    while (found.rows.size() < most_rows && (stepped = sqlite3_step(statement)) == SQLITE_ROW) {
      Cells cells;
      for (int i = 0; i < count; ++i) {
        cells.push_back(column(statement, i));
      }
      found.rows.push_back(std::move(cells));
    }
    if (stepped != SQLITE_ROW && stepped != SQLITE_DONE) {
      return rows_error(database_);
    }
    return found;
  }

  Status insert(const agent::Row& row) {
    auto& statement = inserts_.at(static_cast<std::size_t>(row.table));
    if (statement == nullptr) {
      const Columns& columns = columns_of(row.table);
      std::string sql = "INSERT INTO " + std::string(columns.name) + " (" +
                        std::string(columns.columns) + ") VALUES (?";
      for (std::size_t i = 1; i < row.cells.size(); ++i) {
        sql += ",?";
      }
      sql += ") ON CONFLICT DO NOTHING";
      if (sqlite3_prepare_v2(database_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
        return fail("write");
      }
    }
    for (std::size_t i = 0; i < row.cells.size(); ++i) {
      bind(statement, static_cast<int>(i + 1), row.cells[i]);
    }
    const int stepped = sqlite3_step(statement);
    const Error error = stepped == SQLITE_DONE ? Error{} : fail("write");
    sqlite3_reset(statement);
    return stepped == SQLITE_DONE ? Status(Ok{}) : Status(error);
  }

  std::uint64_t used_bytes() {
    const Result<Rows> rows = query(
        "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(), "
        "pragma_freelist_count(), pragma_page_size()",
        {}, 1);
    const auto* bytes =
        rows && !rows->rows.empty() ? std::get_if<std::int64_t>(&rows->rows[0][0]) : nullptr;
    return bytes != nullptr ? static_cast<std::uint64_t>(*bytes) : 0;
  }

  Status run(const std::string& sql) {
    return sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK
               ? Status(Ok{})
               : Status(fail("write"));
  }

  Error fail(const std::string& what) {
    return make_error(what + " history " + path_,
                      database_ != nullptr ? sqlite3_errmsg(database_) : "no memory");
  }

  void close() {
    for (sqlite3_stmt*& statement : inserts_) {
      sqlite3_finalize(statement);
      statement = nullptr;
    }
    sqlite3_close(database_);
    database_ = nullptr;
  }

  std::string path_;
  bool read_only_;
  sqlite3* database_ = nullptr;
  std::array<sqlite3_stmt*, kTables> inserts_{};
};

}  // namespace

std::unique_ptr<Store> make_sqlite_store(const std::string& path, bool read_only) {
  return std::make_unique<SqliteStore>(path, read_only);
}

}  // namespace einhorn::agent
