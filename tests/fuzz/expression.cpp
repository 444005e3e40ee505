// Numbers that depend on the machine, as -n and other options take them.
#include "master/expression.h"

#include <string>
#include <string_view>

#include "fuzz.h"

namespace einhorn::fuzz {

void run(std::string_view input) {
  for (const std::uint32_t cpus : {1U, 3U, 8192U}) {
    const Result<std::int64_t> value = master::evaluate(input, cpus);
    if (!value) {
      holds_for_people(value.error().message());
      continue;
    }
    holds(input.find('\0') == std::string_view::npos, "nothing is left unread", input);
    const Result<std::int64_t> inside = master::evaluate("(" + std::string(input) + ")", cpus);
    holds(!inside || *inside == *value, "brackets around all of it change nothing", input);
  }
}

}  // namespace einhorn::fuzz
