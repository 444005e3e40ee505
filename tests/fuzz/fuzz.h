// What every fuzz target is made of.
//
// A target is one file that defines `run`: it takes any bytes whatsoever, and whatever it finds
// wrong with what our code makes of them ends the process. The same file is linked twice: with
// clang's libFuzzer, which looks for such bytes (scripts/fuzz), and with a small main that only
// runs the files of the corpus, as an ordinary test (docs/fuzzing.md).
//
// A target keeps nothing from one input to the next, so that an input alone shows what it found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace einhorn::fuzz {

// The target.
void run(std::string_view input);

// Ends the process, with a line that names the property, unless it holds.
void holds(bool held, std::string_view property, std::string_view detail = {});

// One line of text that can be shown to people: what every error of ours is.
void holds_for_people(std::string_view message);

// An input as a row of small decisions; when it is used up everything is zero and empty.
class Choices {
 public:
  explicit Choices(std::string_view input) : rest_(input) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  std::uint8_t byte() {
    if (rest_.empty()) {
      return 0;
    }
    const auto first = static_cast<std::uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return first;
  }
  // 0 to most, of one byte.
  std::uint8_t below(std::uint8_t most) {
    return static_cast<std::uint8_t>(byte() % (std::uint32_t{most} + 1));
  }
  bool flag() { return (byte() & 1U) != 0; }
  std::uint16_t word() {
    const std::uint32_t low = byte();
    return static_cast<std::uint16_t>(low | std::uint32_t{byte()} << 8U);
  }
  std::string_view text(std::size_t bytes) {
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  std::string_view rest() { return text(rest_.size()); }

 private:
  std::string_view rest_;
};

}  // namespace einhorn::fuzz
