// History: events, lives of workers, upgrades and samples, kept for later.
//
// Rows are gathered in memory and written by a thread of their own, a second's worth at a time, so
// a slow disk or a database that is away holds up nothing else. While it is away rows wait, up to
// kMostWaiting of them, and are written when it is back, none lost and none twice. What was in
// memory when the agent is killed is asked for again of the masters, which keep the last events
// for a minute.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "agent/store.h"
#include "client/feed.h"

namespace einhorn::agent {

using client::flag_of;
using client::Incoming;
using client::integer_of;
using client::PoolModel;
using client::PoolSample;
using client::real_of;
using client::text_of;
using client::UpgradeView;
using client::wall_seconds;
using client::WorkerView;

struct HistoryOptions {
  std::string where;
  std::string host;
  Duration keep_age{0};
  std::uint64_t keep_bytes = 0;
};

struct HistoryQuestion {
  std::string kind;  // events, lives, crashes, samples, upgrades
  std::string pool;
  std::string host;  // "": of every host
  double from = 0;
  double to = 0;
  std::int64_t epoch = 0;  // of events and lives: that worker's; 0 everybody's
  double step = 0;         // of samples: one for so many seconds; 0 every one
  std::size_t limit = 0;
};

class History {
 public:
  static constexpr std::size_t kMostWaiting = 400'000;  // rows
  static constexpr std::size_t kMostBatch = 2000;

  History(HistoryOptions options, std::function<void(std::string)> warn);
  // Writes what waits, if the store takes it within a few seconds.
  ~History();
  History(const History&) = delete;
  History& operator=(const History&) = delete;

  // Errors: a SQLite file that can't be opened. A database that is away is no error: it is waited
  // for.
  Status open();
  void on_line(const Incoming& incoming);

  struct Position {
    std::string stream;
    std::uint64_t number = 0;
  };
  // The last event that is kept of that pool; none: it has none, or nobody can be asked.
  [[nodiscard]] std::optional<Position> last_of(const std::string& pool);

  // As JSON, for the page (docs/agent.md): a list of objects. Errors: unknown kind, the store's.
  Result<std::string> ask(const HistoryQuestion& question);

  [[nodiscard]] std::uint64_t dropped() const;
  [[nodiscard]] std::uint64_t waiting() const;

 private:
  void add(Row row);
  void add_start(const Incoming& incoming);
  void add_life(const Incoming& incoming);
  void add_sample(const Incoming& incoming);
  void add_upgrade(const Incoming& incoming);
  void work();
  bool write_batch(std::unique_lock<std::mutex>& lock);

  HistoryOptions options_;
  std::function<void(std::string)> warn_;
  std::unique_ptr<Store> store_;   // of the thread, once it runs
  std::unique_ptr<Store> reader_;  // of the loop
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Row> waiting_;
  std::uint64_t dropped_ = 0;
  bool leaving_ = false;
  bool hurry_ = false;  // something waits that must not wait for its second
  bool broken_ = false;
  std::thread thread_;
};

// `sql TEXT` and `history KIND ...` of the command line. Prints; the exit status.
int run_sql(const std::string& where, const std::vector<std::string>& words);
int run_history(const std::string& where, const std::vector<std::string>& words);

}  // namespace einhorn::agent
