// A Ruby master executes us in its place: same pid, its children, its sockets, its clients.
//
// What it hands over is Ruby's YAML (wire/ruby_state.h). The outcome is a Boot, as after a start:
// we become the guard in its pid, and the first master goes on with the upgrade that was under way.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "master/boot.h"

namespace einhorn::master {

// Errors: the state can't be read, or a socket it names is not there.
[[nodiscard]] Result<Boot> boot_from_ruby(std::string_view state,
                                          std::vector<std::string> environment,
                                          const std::string& script);

// Whether that could be taken over, without touching anything: for --upgrade-check.
[[nodiscard]] Status check_ruby_state(std::string_view state);

}  // namespace einhorn::master
