#include "master/shares.h"

namespace einhorn::master {
namespace {

constexpr Duration kBudget = std::chrono::milliseconds{100};
constexpr Duration kFresh = std::chrono::seconds{2};
constexpr Duration kForgotten = std::chrono::minutes{10};

}  // namespace

void Shares::begin() {
  const Instant now = kernel_.now();
  until_ = now + kBudget;
  std::erase_if(measured_, [now](const auto& entry) { return now - entry.second.at > kForgotten; });
}

std::optional<os::MemoryShares> Shares::of(Pid pid) {
  const Instant now = kernel_.now();
  const auto known = measured_.find(pid);
  if (now >= until_ || (known != measured_.end() && now - known->second.at < kFresh)) {
    return known != measured_.end() ? std::optional(known->second.shares) : std::nullopt;
  }
  const std::optional<os::MemoryShares> shares = kernel_.shares_of(pid);
  if (shares) {
    measured_[pid] = {*shares, now};
  }
  return shares;
}

}  // namespace einhorn::master
