// Which masters there are: those that were named, and those that are found in directories. One
// Feed each.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/feed.h"

namespace einhorn::agent {

using client::Feed;
using client::flag_of;
using client::integer_of;
using client::Loop;
using client::PoolCounters;
using client::PoolModel;
using client::PoolSample;
using client::real_of;
using client::text_of;
using client::time_of;
using client::UpgradeView;
using client::wall_seconds;
using client::WorkerView;

struct Wanted {
  std::vector<std::string> paths;        // command sockets that were named; they never go
  std::vector<std::string> directories;  // where others are looked for from time to time
};

class Fleet {
 public:
  Fleet(Loop& loop, Wanted wanted, Duration sample_interval, Feed::Hooks hooks);

  // Called with each new feed, before it connects.
  void set_introduction(std::function<void(Feed&)> introduce) { introduce_ = std::move(introduce); }
  void start();
  // By name.
  [[nodiscard]] const std::map<std::string, std::unique_ptr<Feed>>& feeds() const { return feeds_; }
  [[nodiscard]] const PoolModel* find(const std::string& name) const;

 private:
  void look();
  void add(const std::string& path, bool named);
  void drop_gone();

  Loop& loop_;
  Wanted wanted_;
  Duration sample_interval_;
  Feed::Hooks hooks_;
  std::function<void(Feed&)> introduce_;
  std::map<std::string, std::unique_ptr<Feed>> feeds_;
  std::map<std::string, std::string> by_path_;  // names
  std::vector<std::string> named_;              // names of those that never go
};

}  // namespace einhorn::agent
