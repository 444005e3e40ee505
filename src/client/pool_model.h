// What who watches a pool knows of it: drawn from its event stream alone.
//
// A snapshot sets everything anew, each event changes a part. Times are seconds since 1970, as the
// events give them. Everything that grows is bounded: the lives of workers that have ended, the
// samples, the last lines.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wire/value.h"

namespace einhorn::client {

// A worker, living or ended.
struct WorkerView {
  std::uint64_t epoch = 0;
  std::int64_t slot = 0;
  std::int64_t pid = 0;
  std::int64_t version = 0;
  std::string state;  // starting, ready, stopping, ended
  double spawned_at = 0;
  double ready_at = 0;     // 0: not yet
  double stopping_at = 0;  // 0: not told to
  double pinged_at = 0;
  double ended_at = 0;
  std::string request_id;  // JSON text
  std::string status_text;
  bool busy = false;           // it has said that it is
  std::uint64_t requests = 0;  // that it told of
  std::uint64_t rss = 0;
  double cpu = 0;          // seconds used
  double cpu_percent = 0;  // of one CPU, lately
  double sampled_at = 0;
  std::string how;                 // "exited with status 1"
  std::string stage;               // where it was when it ended
  std::string killed_by;           // signal name
  std::optional<int> status;       // exit status
  bool was_told = false;           // its end was asked for
  std::string ailment;             // what was last found wrong with it
  std::vector<std::string> lines;  // its last output
  std::vector<std::string> stack;  // where it was when it hung

  // It ended by itself, or by a signal that nobody of us sent.
  [[nodiscard]] bool crashed() const { return ended_at > 0 && !was_told; }
};

struct UpgradeView {
  std::int64_t from = 0;
  std::int64_t to = 0;
  std::string kind;
  double started_at = 0;
  double ended_at = 0;
  std::string outcome;  // "": under way; upgraded, failed, rolled_back
  std::string reason;
};

struct PoolSample {
  double at = 0;
  std::uint64_t ready = 0;
  std::uint64_t number = 0;
  std::uint64_t rss = 0;
  double cpu_percent = 0;
  std::uint64_t waiting = 0;       // connections that nobody has accepted yet
  std::optional<double> requests;  // a second, if workers tell of them
};

// Over the model's life, for metrics. They only grow.
struct PoolCounters {
  std::uint64_t events = 0;
  std::uint64_t missed = 0;
  std::uint64_t spawned = 0;
  std::uint64_t spawn_failures = 0;
  std::uint64_t crashed = 0;
  std::uint64_t stopped = 0;
  std::uint64_t acks = 0;
  double ack_seconds = 0;
  std::uint64_t acks_missed = 0;
  std::uint64_t pings = 0;
  std::uint64_t commands = 0;
  std::uint64_t upgrades_done = 0;
  std::uint64_t upgrades_failed = 0;
  std::uint64_t rollbacks = 0;
  std::uint64_t master_starts = 0;
  std::uint64_t reconnects = 0;
};

class PoolModel {
 public:
  static constexpr std::size_t kMostEnded = 2000;
  static constexpr std::size_t kMostSamples = 720;
  static constexpr std::size_t kMostLines = 200;

  PoolModel(std::string name, std::string path) : name_(std::move(name)), path_(std::move(path)) {}

  // Takes a line of the stream; `line` is its text. Whatever makes no sense in it is left out.
  void take(const wire::Value& event, std::string_view line);
  void set_connected(bool connected, std::string error);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] bool known() const { return known_; }
  [[nodiscard]] const std::string& error() const { return error_; }
  [[nodiscard]] const std::string& stream() const { return stream_; }
  // The last event taken. None before the first snapshot.
  [[nodiscard]] std::uint64_t last() const { return last_; }
  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] std::uint64_t ready() const;
  [[nodiscard]] std::int64_t version() const { return version_; }
  [[nodiscard]] bool stopping() const { return stopping_; }
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] const std::map<std::uint64_t, WorkerView>& workers() const { return workers_; }
  // Ended ones, oldest first.
  [[nodiscard]] const std::deque<WorkerView>& ended() const { return ended_; }
  [[nodiscard]] const std::optional<UpgradeView>& upgrade() const { return upgrade_; }
  [[nodiscard]] const std::deque<PoolSample>& samples() const { return samples_; }
  [[nodiscard]] const std::deque<std::string>& lines() const { return lines_; }
  [[nodiscard]] const PoolCounters& counters() const { return counters_; }
  [[nodiscard]] PoolCounters& counters() { return counters_; }
  struct Sizes {
    std::uint64_t master_rss = 0;
    std::uint64_t guard_rss = 0;
    double master_cpu = 0;
  };
  [[nodiscard]] const Sizes& sizes() const { return sizes_; }
  [[nodiscard]] std::int64_t master_pid() const { return master_pid_; }
  [[nodiscard]] std::int64_t guard_pid() const { return guard_pid_; }
  // The worker whose end the last line told of; null if it told of none.
  [[nodiscard]] const WorkerView* just_ended() const {
    return just_ended_ ? &ended_.back() : nullptr;
  }

 private:
  void start(const wire::Value& event);
  void take_state(const wire::Value& state);
  void take_sample(const wire::Value& event);
  void take_event(const wire::Value& event, std::string_view name, double at);
  void take_worker_event(const wire::Value& event, std::string_view name, double at);
  void take_upgrade_event(const wire::Value& event, std::string_view name, double at);
  void take_lines(const wire::Value& event);
  void end(const wire::Value& event, double at);
  WorkerView* worker_of(const wire::Value& event);

  std::string name_;
  std::string path_;
  bool connected_ = false;
  bool known_ = false;
  std::string error_ = "not connected yet";
  std::string stream_;
  std::uint64_t last_ = 0;
  std::uint64_t number_ = 0;
  std::int64_t version_ = 0;
  std::int64_t master_pid_ = 0;
  std::int64_t guard_pid_ = 0;
  bool stopping_ = false;
  bool failed_ = false;
  bool just_ended_ = false;
  std::map<std::uint64_t, WorkerView> workers_;
  std::deque<WorkerView> ended_;
  std::optional<UpgradeView> upgrade_;
  std::deque<PoolSample> samples_;
  std::deque<std::string> lines_;
  PoolCounters counters_;
  Sizes sizes_;
  std::uint64_t requests_ = 0;  // that pings have told of
  std::uint64_t requests_sampled_ = 0;
};

// Members of events and states, whatever else stands there: 0 or "" then.
[[nodiscard]] std::int64_t integer_of(const wire::Value& map, std::string_view key);
[[nodiscard]] double real_of(const wire::Value& map, std::string_view key);
[[nodiscard]] std::string text_of(const wire::Value& map, std::string_view key);
[[nodiscard]] bool flag_of(const wire::Value& map, std::string_view key);
// ISO 8601 as `state json` writes it, or seconds; 0 if it is neither.
[[nodiscard]] double time_of(const wire::Value& map, std::string_view key);

}  // namespace einhorn::client
