// Which of several names somebody meant who wrote another one.
#pragma once

#include <span>
#include <string_view>

namespace einhorn {

// The most similar of `candidates`: at most a third of the letters, or two, are different. Empty:
// none is like it.
[[nodiscard]] std::string_view most_similar(std::string_view name,
                                            std::span<const std::string_view> candidates);

}  // namespace einhorn
