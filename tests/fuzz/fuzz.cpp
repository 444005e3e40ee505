#include "fuzz.h"

#include <cstdio>
#include <cstdlib>

#include "wire/text.h"

namespace einhorn::fuzz {

void holds(bool held, std::string_view property, std::string_view detail) {
  if (!held) {
    std::fprintf(stderr, "does not hold: %.*s%s%.*s\n", static_cast<int>(property.size()),
                 property.data(), detail.empty() ? "" : ": ", static_cast<int>(detail.size()),
                 detail.data());
    std::abort();
  }
}

void holds_for_people(std::string_view message) {
  holds(!message.empty(), "an error says something");
  for (const char letter : message) {
    const auto code = static_cast<unsigned char>(letter);
    holds(code >= 0x20 && code != 0x7f, "an error is one line of text", message);
  }
}

}  // namespace einhorn::fuzz

// What libFuzzer calls; also the way in for any other fuzzer that knows libFuzzer's.
// NOLINTNEXTLINE(readability-identifier-naming)
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// NOLINTNEXTLINE(readability-identifier-naming)
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  einhorn::fuzz::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
