// Numbers in texts, read the same everywhere: digits with at most a minus before them; no blank, no
// plus sign, no locale. Pure; allocates nothing.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>

namespace einhorn {

// The whole of the text as a number; none if it is anything else, or more than `Number` holds.
// `form` is the base of an integer (10) or the std::chars_format of a real (general).
template <typename Number, typename... Form>
[[nodiscard]] std::optional<Number> whole_number(std::string_view text, Form... form) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data(), end, number, form...);
  return failed == std::errc{} && stop == end ? std::optional(number) : std::nullopt;
}

// The number with which the text begins, and what is behind it cut off from it; none (and the text as
// it was) if it begins with none, or with more than `Number` holds.
template <typename Number, typename... Form>
[[nodiscard]] std::optional<Number> take_number(std::string_view& text, Form... form) {
  Number number{};
  const auto [stop, failed] =
      std::from_chars(text.data(), text.data() + text.size(), number, form...);
  if (failed != std::errc{}) {
    return std::nullopt;
  }
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
  return number;
}

// The number with which the text begins; 0 if it begins with none.
template <typename Number = std::uint64_t>
[[nodiscard]] Number number_of(std::string_view text) {
  return take_number<Number>(text).value_or(Number{});
}

}  // namespace einhorn
