// Running lives: one with its trace, or many until one goes wrong.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace einhorn::sim {

// An empty text: the invariants held, and a second run of the same seed went the same way.
[[nodiscard]] std::string try_seed(std::uint64_t seed);

// One life with its trace on standard output. False: an invariant did not hold.
bool replay(std::uint64_t seed);

// Seeds from `from` on, until so many lives or so much time are over. False: one went wrong.
bool search_seeds(std::uint64_t from, std::uint64_t lives,
                  std::optional<std::chrono::steady_clock::duration> time);

// The same with each seed lived once, and said: for a search that has to be quick or is stopped.
bool search_quickly(std::uint64_t from, std::uint64_t lives);

// Every seed of a row, and at the end which invariants did not hold where.
bool survey(std::uint64_t from, std::uint64_t lives);

// When a CHECK of the code under test aborts, the seed is said before.
void say_the_seed_when_aborted();

}  // namespace einhorn::sim
