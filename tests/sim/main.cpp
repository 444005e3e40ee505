// The simulation by itself, or as a test.
//
//   einhorn_sim --seed N        one life, with its whole trace
//   einhorn_sim --minutes M     new seeds until the time is over or an invariant does not hold
//   einhorn_sim --lives N [--from S]   N lives from seed S on
//   einhorn_sim --quick N [--from S]   the same, each only once
//   einhorn_sim --survey N [--from S]  which invariants do not hold in N lives
//   einhorn_sim ...             as a test, with the options of GoogleTest
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>

#include <gtest/gtest.h>

#include "sim/replay.h"

namespace {

std::optional<std::uint64_t> number_behind(int argc, char** argv, std::string_view option) {
  for (int i = 1; i + 1 < argc; ++i) {
    const std::string_view value = argv[i + 1];
    std::uint64_t number = 0;
    if (option == argv[i] &&
        std::from_chars(value.data(), value.data() + value.size(), number).ec == std::errc{}) {
      return number;
    }
  }
  return std::nullopt;
}

}  // namespace

int main(int argc, char** argv) {
  using einhorn::sim::search_seeds;
  einhorn::sim::say_the_seed_when_aborted();
  if (const auto seed = number_behind(argc, argv, "--seed")) {
    return einhorn::sim::replay(*seed) ? 0 : 1;
  }
  const auto from = number_behind(argc, argv, "--from");
  if (const auto lives = number_behind(argc, argv, "--lives")) {
    return search_seeds(from.value_or(1), *lives, std::nullopt) ? 0 : 1;
  }
  if (const auto lives = number_behind(argc, argv, "--quick")) {
    return einhorn::sim::search_quickly(from.value_or(1), *lives) ? 0 : 1;
  }
  if (const auto lives = number_behind(argc, argv, "--survey")) {
    return einhorn::sim::survey(from.value_or(1), *lives) ? 0 : 1;
  }
  if (const auto minutes = number_behind(argc, argv, "--minutes")) {
    const auto clock = std::chrono::system_clock::now().time_since_epoch().count();
    return search_seeds(from.value_or(static_cast<std::uint64_t>(clock) / 1000), UINT64_MAX,
                        std::chrono::minutes{*minutes})
               ? 0
               : 1;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
