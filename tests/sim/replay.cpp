#include "sim/replay.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

#include "sim/simulation.h"

namespace einhorn::sim {
namespace {

// What the handler of an abort says: prepared while nothing is wrong.
std::array<char, 96> last_words{};

void on_abort(int signal) {
  static_cast<void>(signal);
  static_cast<void>(!write(STDERR_FILENO, last_words.data(), std::strlen(last_words.data())));
}

std::string command(std::uint64_t seed) { return "scripts/sim --seed " + std::to_string(seed); }

std::string text_of(const Outcome& outcome, std::uint64_t seed) {
  std::string text;
  for (const std::string& line : outcome.last) {
    text += line + "\n";
  }
  return text + "\n" + outcome.invariant + " does not hold: " + outcome.what +
         "\nreplay: " + command(seed) + "\n";
}

void announce(std::uint64_t seed) {
  const std::string text = "aborted; replay: " + command(seed) + "\n";
  std::copy_n(text.c_str(), text.size() + 1, last_words.data());
}

}  // namespace

void say_the_seed_when_aborted() { std::signal(SIGABRT, on_abort); }

std::string try_seed(std::uint64_t seed) {
  announce(seed);
  const Outcome first = simulate(seed, nullptr);
  if (!first.held) {
    return text_of(first, seed);
  }
  const Outcome second = simulate(seed, nullptr);
  if (first.hash != second.hash || !second.held) {
    return "the same seed went two different ways (" + std::to_string(first.lines) + " and " +
           std::to_string(second.lines) + " lines)\nreplay: " + command(seed) + "\n";
  }
  return "";
}

bool replay(std::uint64_t seed) {
  announce(seed);
  const Outcome outcome = simulate(seed, stdout);
  std::printf("seed %llu: %llu lines, %llu masters, %llu workers started, %.0f s lived\n",
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(outcome.lines),
              static_cast<unsigned long long>(outcome.masters),
              static_cast<unsigned long long>(outcome.workers), to_seconds(outcome.lived));
  if (!outcome.held) {
    std::printf("%s does not hold: %s\n", outcome.invariant.c_str(), outcome.what.c_str());
  }
  return outcome.held;
}

bool search_quickly(std::uint64_t from, std::uint64_t lives) {
  for (std::uint64_t seed = from; seed < from + lives; ++seed) {
    announce(seed);
    const Outcome outcome = simulate(seed, nullptr);
    if (!outcome.held) {
      std::fprintf(stderr, "%s", text_of(outcome, seed).c_str());
      return false;
    }
    std::printf("seed %llu holds\n", static_cast<unsigned long long>(seed));
    static_cast<void>(std::fflush(stdout));
  }
  return true;
}

bool survey(std::uint64_t from, std::uint64_t lives) {
  std::map<std::string, std::pair<std::uint64_t, std::string>> found;  // how often, an example
  for (std::uint64_t seed = from; seed < from + lives; ++seed) {
    announce(seed);
    const Outcome outcome = simulate(seed, nullptr);
    if (!outcome.held) {
      std::printf("seed %llu: %s does not hold: %s\n", static_cast<unsigned long long>(seed),
                  outcome.invariant.c_str(), outcome.what.c_str());
      std::fflush(stdout);
      auto& entry = found[outcome.invariant];
      ++entry.first;
      entry.second += "  " + std::to_string(seed) + " (" + std::to_string(outcome.lines) +
                      " lines): " + outcome.what + "\n";
    }
  }
  for (const auto& [invariant, entry] : found) {
    std::printf("%s does not hold in %llu of %llu lives\n%s", invariant.c_str(),
                static_cast<unsigned long long>(entry.first),
                static_cast<unsigned long long>(lives), entry.second.c_str());
  }
  return found.empty();
}

bool search_seeds(std::uint64_t from, std::uint64_t lives,
                  std::optional<std::chrono::steady_clock::duration> time) {
  const auto begun = std::chrono::steady_clock::now();
  std::uint64_t done = 0;
  for (std::uint64_t seed = from; done < lives; ++seed, ++done) {
    if (time && std::chrono::steady_clock::now() - begun >= *time) {
      break;
    }
    const std::string wrong = try_seed(seed);
    if (!wrong.empty()) {
      std::fprintf(stderr, "%s", wrong.c_str());
      return false;
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  std::printf("%llu lives in %.1f s, each twice (%.1f lives/s): every invariant held\n",
              static_cast<unsigned long long>(done), seconds,
              2.0 * static_cast<double>(done) / seconds);
  return true;
}

}  // namespace einhorn::sim
