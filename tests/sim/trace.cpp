#include "sim/trace.h"

#include <array>

namespace einhorn::sim {
namespace {

constexpr std::size_t kKept = 60;
constexpr std::uint64_t kPrime = 0x100000001b3U;

}  // namespace

void Trace::mix(std::string_view bytes) {
  for (const char byte : bytes) {
    hash_ = (hash_ ^ static_cast<unsigned char>(byte)) * kPrime;
  }
}

void Trace::add(Instant at, std::string_view who, std::string_view what) {
  std::array<char, 32> time{};
  const std::int64_t microseconds = at.time_since_epoch().count() / 1000;
  std::snprintf(time.data(), time.size(), "%6lld.%06lld ",
                static_cast<long long>(microseconds / 1'000'000),
                static_cast<long long>(microseconds % 1'000'000));
  std::string line = time.data();
  line += who;
  line += ' ';
  line += what;
  while (line.ends_with('\n')) {
    line.pop_back();
  }
  mix(line);
  ++lines_;
  if (out_ != nullptr) {
    std::fprintf(out_, "%s\n", line.c_str());
  }
  last_.push_back(std::move(line));
  if (last_.size() > kKept) {
    last_.pop_front();
  }
}

}  // namespace einhorn::sim
