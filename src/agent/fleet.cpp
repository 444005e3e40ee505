#include "agent/fleet.h"

#include <algorithm>

#include "client/socket_paths.h"

namespace einhorn::agent {
namespace {

constexpr Duration kLookEvery = std::chrono::seconds{2};
constexpr Duration kForgottenAfter = std::chrono::seconds{60};
constexpr std::size_t kMostPools = 256;

}  // namespace

Fleet::Fleet(Loop& loop, Wanted wanted, Duration sample_interval, Feed::Hooks hooks)
    : loop_(loop),
      wanted_(std::move(wanted)),
      sample_interval_(sample_interval),
      hooks_(std::move(hooks)) {}

void Fleet::start() {
  for (const std::string& path : wanted_.paths) {
    add(path, true);
  }
  if (!wanted_.directories.empty()) {
    look();
  }
}

void Fleet::look() {
  for (const std::string& directory : wanted_.directories) {
    for (const client::FoundMaster& found : client::list_masters(directory)) {
      add(found.path, false);
    }
  }
  drop_gone();
  loop_.after(kLookEvery, [this] { look(); });
}

void Fleet::add(const std::string& path, bool named) {
  if (by_path_.contains(path) || feeds_.size() >= kMostPools) {
    return;
  }
  std::string name = client::pool_name(path);
  for (int i = 2; feeds_.contains(name); ++i) {
    name = client::pool_name(path) + "-" + std::to_string(i);
  }
  auto feed = std::make_unique<Feed>(loop_, name, path, sample_interval_, hooks_);
  by_path_[path] = name;
  if (named) {
    named_.push_back(name);
  }
  Feed& added = *feed;
  feeds_[name] = std::move(feed);
  if (introduce_) {
    introduce_(added);
  }
  added.start();
}

// Pools that were found, not named, and whose master has been away for a while.
void Fleet::drop_gone() {
  std::erase_if(feeds_, [this](const auto& entry) {
    const bool stays = std::find(named_.begin(), named_.end(), entry.first) != named_.end() ||
                       entry.second->away(loop_.now()) < kForgottenAfter;
    if (!stays) {
      by_path_.erase(entry.second->model().path());
    }
    return !stays;
  });
}

const PoolModel* Fleet::find(const std::string& name) const {
  const auto found = feeds_.find(name);
  return found == feeds_.end() ? nullptr : &found->second->model();
}

}  // namespace einhorn::agent
