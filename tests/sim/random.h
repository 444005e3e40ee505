// Numbers from a seed: the only source of chance in the simulation.
//
// The same seed gives the same numbers with every compiler and library, which std::*_distribution
// does not promise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/instant.h"

namespace einhorn::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  // SplitMix64.
  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30U)) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ (mixed >> 27U)) * 0x94d049bb133111ebU;
    return mixed ^ (mixed >> 31U);
  }

  // 0 <= result < limit; the tiny bias of the remainder does not matter here.
  std::uint64_t below(std::uint64_t limit) { return limit == 0 ? 0 : next() % limit; }
  // Both ends included.
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low) + 1));
  }
  bool chance(std::uint64_t of_thousand) { return below(1000) < of_thousand; }
  Duration duration(Duration low, Duration high) {
    return Duration{between(low.count(), high.count())};
  }
  // Mostly short, sometimes up to the whole length.
  Duration skewed(Duration low, Duration high) {
    const Duration span = high - low;
    return duration(low, low + Duration{span.count() >> below(8)});
  }
  template <typename T>
  const T& pick(const std::vector<T>& from) {
    return from[static_cast<std::size_t>(below(from.size()))];
  }

 private:
  std::uint64_t state_;
};

}  // namespace einhorn::sim
