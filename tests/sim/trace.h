// Everything that happens in a simulated life, as lines: hashed, so that two lives of one seed can
// be compared; the last ones kept, so that a failure can be understood; printed on request.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <string_view>

#include "base/instant.h"

namespace einhorn::sim {

class Trace {
 public:
  // `out` gets every line; null: nobody does.
  explicit Trace(std::FILE* out) : out_(out) {}

  void add(Instant at, std::string_view who, std::string_view what);
  [[nodiscard]] std::uint64_t hash() const { return hash_; }
  [[nodiscard]] std::uint64_t lines() const { return lines_; }
  [[nodiscard]] const std::deque<std::string>& last() const { return last_; }

 private:
  void mix(std::string_view bytes);

  std::FILE* out_;
  std::uint64_t hash_ = 0xcbf29ce484222325U;
  std::uint64_t lines_ = 0;
  std::deque<std::string> last_;
};

}  // namespace einhorn::sim
