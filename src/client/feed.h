// The line to one master: connects, subscribes, hands every line of the stream on, and comes back
// when the master has gone.
//
// It comes back with the last number it has, so that nothing is lost when a master was, or we were, away
// for a moment; what is lost is counted (PoolCounters::missed). Between two tries it waits, longer
// each time, up to five seconds.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "client/loop.h"
#include "client/pool_model.h"
#include "os/unique_fd.h"
#include "wire/value.h"

namespace einhorn::client {

// A line of a stream, as everybody sees it: the model has taken it already.
struct Incoming {
  const PoolModel& pool;
  const wire::Value& event;
  std::string_view name;
  std::string_view line;  // without its newline
};

class Feed {
 public:
  struct Hooks {
    std::function<void(const Incoming&)> on_line;
    std::function<void(const PoolModel&)> on_connection;  // it came or went
    std::function<void(std::string)> warn;
  };

  Feed(Loop& loop, std::string name, std::string path, Duration sample_interval, Hooks hooks);
  ~Feed();
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;

  void start();
  // The last event that somebody has kept of an earlier life of ours.
  void begin_after(std::string stream, std::uint64_t number);
  [[nodiscard]] const PoolModel& model() const { return model_; }
  // How long there has been no connection; zero while there is one.
  [[nodiscard]] Duration away(Instant now) const;
  [[nodiscard]] bool ever_connected() const { return ever_; }

 private:
  void connect();
  void on_ready(Loop::Ready ready);
  void on_line(std::string_view line);
  void lose(const std::string& why);
  [[nodiscard]] std::string request() const;

  Loop& loop_;
  PoolModel model_;
  Duration sample_interval_;
  Hooks hooks_;
  os::UniqueFd fd_;
  std::string buffer_;
  std::string unsent_;
  std::string stream_;
  std::uint64_t since_ = 0;
  bool has_since_ = false;
  bool ever_ = false;
  bool answered_ = false;
  Duration delay_{0};
  Instant lost_at_;
  Loop::TimerId retry_ = 0;
};

}  // namespace einhorn::client
