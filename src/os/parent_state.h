// A look at what a Ruby master is about to hand over, without taking it.
#pragma once

#include <optional>
#include <string>

namespace einhorn::os {

// While a Ruby master waits for `--upgrade-check`, its state lies in a pipe already. If our parent
// is an interpreter and has such a pipe, a copy of what is in it; the pipe keeps it. None if the
// parent is none, if there is no such pipe, or if the state is larger than a pipe, so that a copy
// can't be whole.
[[nodiscard]] std::optional<std::string> peek_parent_state();

}  // namespace einhorn::os
