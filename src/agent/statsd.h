// StatsD and DogStatsD: counters, gauges and raw timers, as datagrams to UDP or a unix socket.
//
// Timers (worker lives, ACK times, upgrades) go out one by one, unmerged: making percentiles over
// many hosts of them is the server's business. Lines are gathered to datagrams of at most 1432
// bytes. Nobody is waited for: what finds no room is dropped and counted.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "agent/fleet.h"
#include "client/feed.h"
#include "os/unique_fd.h"

namespace einhorn::agent {

using client::Incoming;
using client::Loop;

struct StatsdOptions {
  std::string address;             // "127.0.0.1:8125", "unix:/path"
  std::string prefix = "einhorn";  // of every name
  bool dog = false;                // tags as DogStatsD has them; else the pool is part of the name
  std::vector<std::string> tags;   // "env:prod", on every metric
  Duration interval = std::chrono::seconds{10};  // of gauges
};

class Statsd {
 public:
  Statsd(Loop& loop, StatsdOptions options, const Fleet& fleet,
         std::function<void(std::string)> warn);

  void on_line(const Incoming& incoming);
  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }

 private:
  struct Tag {
    std::string name;
    std::string value;
  };
  void counter(const PoolModel& pool, std::string_view name, std::uint64_t count,
               const std::vector<Tag>& tags = {});
  void gauge(const PoolModel& pool, std::string_view name, double value);
  void timer(const PoolModel& pool, std::string_view name, double seconds,
             const std::vector<Tag>& tags = {});
  void add(const PoolModel& pool, std::string_view name, const std::string& value,
           std::string_view type, const std::vector<Tag>& tags);
  void send();
  void tick();

  Loop& loop_;
  StatsdOptions options_;
  const Fleet& fleet_;
  std::function<void(std::string)> warn_;
  os::UniqueFd fd_;
  std::string datagram_;
  bool flush_planned_ = false;
  bool warned_ = false;
  std::uint64_t dropped_ = 0;
};

}  // namespace einhorn::agent
