// `history upgrades`, `history crashes --since 2d`: what an agent has kept. A master keeps nothing
// of that, so einhorn-agent is run, which knows where the history is and how to read it.
#pragma once

#include <string>
#include <vector>

namespace einhorn::shell {

// What einhorn-agent is called with: without another name the history of that master's pool.
[[nodiscard]] std::vector<std::string> history_words(const std::string& socket_path,
                                                     const std::vector<std::string>& args);

// Prints to standard output and error. Returns the exit status; 127 if there is no einhorn-agent,
// which was said.
[[nodiscard]] int run_history(const std::string& socket_path, const std::vector<std::string>& args);

}  // namespace einhorn::shell
