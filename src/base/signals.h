// Signals by name and number.
#pragma once

#include <csignal>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace einhorn {

// "USR2" or "SIGUSR2", in any case -> its number. None if there is no such signal.
[[nodiscard]] std::optional<int> parse_signal(std::string_view name);

// 12 -> "USR2"; numbers without a name as "34".
[[nodiscard]] std::string signal_name(int number);

// Every name, without SIG, by number.
[[nodiscard]] std::vector<std::string_view> signal_names();

// A set of signals (1..64).
class SignalSet {
 public:
  SignalSet() = default;
  explicit SignalSet(std::uint64_t bits) : bits_(bits) {}
  void add(int number) { bits_ |= std::uint64_t{1} << (static_cast<unsigned>(number) - 1U); }
  [[nodiscard]] bool has(int number) const {
    return (bits_ >> (static_cast<unsigned>(number) - 1U) & 1U) != 0;
  }
  [[nodiscard]] bool empty() const { return bits_ == 0; }
  [[nodiscard]] std::uint64_t bits() const { return bits_; }
  // In ascending order.
  [[nodiscard]] std::vector<int> numbers() const;

 private:
  std::uint64_t bits_ = 0;
};

}  // namespace einhorn
