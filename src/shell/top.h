// `einhornsh top`: the workers of a pool in a terminal, live, from the event stream.
#pragma once

#include <string>

namespace einhorn::shell {

// Until somebody leaves it. A master that goes is waited for. `term`: $TERM, or null. Returns the
// exit status.
[[nodiscard]] int run_top(const std::string& socket_path, const char* term);

}  // namespace einhorn::shell
