// Where history is kept: a SQLite file or a PostgreSQL database, with the same tables (docs/agent.md).
//
// A batch is written as a whole or not at all. What is there already is left as it is, so a batch
// of which nobody knows whether it arrived is simply written again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/instant.h"
#include "base/result.h"

namespace einhorn::agent {

// A value of a column; none is NULL.
using Cell = std::variant<std::monostate, std::int64_t, double, std::string>;
using Cells = std::vector<Cell>;

enum class Table { kEvents, kLives, kSamples, kUpgrades };
inline constexpr std::size_t kTables = 4;

struct Columns {
  std::string_view name;
  std::string_view definition;  // of the table, between its brackets
  std::string_view columns;     // in the order of a row's cells
};
[[nodiscard]] const Columns& columns_of(Table table);

// What older tables have not; it is added to them.
struct AddedColumn {
  Table table;
  std::string_view name;
  std::string_view type;
};
[[nodiscard]] std::span<const AddedColumn> added_columns();

struct Row {
  Table table;
  Cells cells;
};

struct Rows {
  std::vector<std::string> names;
  std::vector<Cells> rows;
};

class Store {
 public:
  Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  virtual ~Store() = default;

  // Connects, and makes what is not there. May be called again after a failure.
  virtual Status open() = 0;
  virtual Status write(const std::vector<Row>& rows) = 0;
  // Removes what is older, and then the oldest until it takes no more than so much.
  virtual Status expire(double before, std::uint64_t most_bytes) = 0;
  // Read only: nothing that the text says can change anything. Parameters are $1, $2...
  virtual Result<Rows> query(const std::string& sql, const Cells& parameters,
                             std::size_t most_rows) = 0;
};

[[nodiscard]] bool is_postgresql(const std::string& where);
// `read_only`: only `query` will be asked of it, and nothing is made.
[[nodiscard]] std::unique_ptr<Store> make_store(const std::string& where, bool read_only);
[[nodiscard]] std::unique_ptr<Store> make_sqlite_store(const std::string& path, bool read_only);
[[nodiscard]] std::unique_ptr<Store> make_postgresql_store(const std::string& url, bool read_only);

}  // namespace einhorn::agent
