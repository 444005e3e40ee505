#include "agent/store.h"

#include <array>

namespace einhorn::agent {

// The tables are documented: columns are only ever added. Both databases take these definitions.
const Columns& columns_of(Table table) {
  static const std::array<Columns, kTables> kAll = {{
      {"events",
       "host TEXT, pool TEXT, stream TEXT, n BIGINT, at DOUBLE PRECISION, event TEXT, epoch "
       "BIGINT, "
       "version BIGINT, data TEXT, PRIMARY KEY (host, pool, stream, n)",
       "host, pool, stream, n, at, event, epoch, version, data"},
      {"lives",
       "host TEXT, pool TEXT, stream TEXT, epoch BIGINT, slot BIGINT, pid BIGINT, version BIGINT, "
       "spawned_at DOUBLE PRECISION, ready_at DOUBLE PRECISION, stopping_at DOUBLE PRECISION, "
       "ended_at DOUBLE PRECISION, how TEXT, stage TEXT, status BIGINT, signal TEXT, crashed "
       "BIGINT, "
       "lines TEXT, PRIMARY KEY (host, pool, stream, epoch)",
       "host, pool, stream, epoch, slot, pid, version, spawned_at, ready_at, stopping_at, "
       "ended_at, "
       "how, stage, status, signal, crashed, lines"},
      {"samples",
       "host TEXT, pool TEXT, stream TEXT, at DOUBLE PRECISION, number BIGINT, ready BIGINT, "
       "rss BIGINT, cpu_percent DOUBLE PRECISION, waiting BIGINT, requests DOUBLE PRECISION, "
       "PRIMARY KEY (host, pool, stream, at)",
       "host, pool, stream, at, number, ready, rss, cpu_percent, waiting, requests"},
      {"upgrades",
       "host TEXT, pool TEXT, stream TEXT, n BIGINT, from_version BIGINT, to_version BIGINT, "
       "kind TEXT, started_at DOUBLE PRECISION, ended_at DOUBLE PRECISION, outcome TEXT, "
       "reason TEXT, PRIMARY KEY (host, pool, stream, n)",
       "host, pool, stream, n, from_version, to_version, kind, started_at, ended_at, outcome, "
       "reason"},
  }};
  return kAll.at(static_cast<std::size_t>(table));
}

std::span<const AddedColumn> added_columns() {
  static constexpr std::array<AddedColumn, 1> kAdded = {
      {{Table::kSamples, "requests", "DOUBLE PRECISION"}}};
  return kAdded;
}

bool is_postgresql(const std::string& where) {
  return where.starts_with("postgresql://") || where.starts_with("postgres://");
}

std::unique_ptr<Store> make_store(const std::string& where, bool read_only) {
  return is_postgresql(where) ? make_postgresql_store(where, read_only)
                              : make_sqlite_store(where, read_only);
}

}  // namespace einhorn::agent
