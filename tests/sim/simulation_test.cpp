#include <chrono>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "sim/replay.h"

namespace einhorn::sim {
namespace {

constexpr std::uint64_t kFirstSeed = 1;
constexpr std::uint64_t kMostSeeds = 400;
constexpr std::chrono::seconds kTime{20};
#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kFewestLives = 1;  // each takes ten times as long
#else
constexpr std::uint64_t kFewestLives = 6;
#endif

// A fixed row of seeds; a slow machine gets through fewer of them.
TEST(Simulation, ManyLives) {
  const auto begun = std::chrono::steady_clock::now();
  std::uint64_t seed = kFirstSeed;
  for (; seed < kFirstSeed + kMostSeeds && std::chrono::steady_clock::now() - begun < kTime;
       ++seed) {
    ASSERT_EQ(try_seed(seed), "");
  }
  EXPECT_GE(seed, kFirstSeed + kFewestLives);
}

// Every seed that ever found something.
TEST(Simulation, SeedsThatFailedOnce) {
  std::ifstream file(std::string(SIM_DIRECTORY) + "/seeds.txt");
  ASSERT_TRUE(file.is_open());
  std::string line;
  while (std::getline(file, line)) {
    std::uint64_t seed = 0;
    if (line.empty() || line[0] == '#' || !(std::istringstream(line) >> seed)) {
      continue;
    }
    EXPECT_EQ(try_seed(seed), "") << line;
  }
}

}  // namespace
}  // namespace einhorn::sim
