#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "sim/replay.h"

namespace einhorn::sim {
namespace {

constexpr std::uint64_t kFirstSeed = 1;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::chrono::seconds kTime{40};
constexpr std::uint64_t kFewestLives = 1;  // each takes ten times as long
#else
constexpr std::chrono::seconds kTime{60};
constexpr std::uint64_t kFewestLives = 6;
#endif

// Other ones with each commit (scripts/test sets this), so that all of them together see more.
std::uint64_t first_seed() {
  const char* given = std::getenv("EINHORN_SIM_SEED");
  std::uint64_t seed = kFirstSeed;
  if (given != nullptr) {
    std::from_chars(given, given + std::strlen(given), seed);
  }
  return seed;
}

// As many lives as there is time for.
TEST(Simulation, ManyLives) {
  const auto begun = std::chrono::steady_clock::now();
  const std::uint64_t first = first_seed();
  std::uint64_t seed = first;
  for (; std::chrono::steady_clock::now() - begun < kTime; ++seed) {
    ASSERT_EQ(try_seed(seed), "");
  }
  std::printf("%llu lives, each twice: scripts/sim --lives %llu --from %llu\n",
              static_cast<unsigned long long>(seed - first),
              static_cast<unsigned long long>(seed - first),
              static_cast<unsigned long long>(first));
  EXPECT_GE(seed, first + kFewestLives);
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
