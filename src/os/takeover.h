// Asking a master without a guard for its pool.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "os/unique_fd.h"

namespace einhorn::os {

struct TakenOver {
  // What the master held, under the names that a guard keeps it by. Empty: it did not want to.
  std::vector<std::pair<std::string, UniqueFd>> descriptors;
  std::string refusal;  // what it said instead
};

// `socket` is connected to a command socket. Waits up to ten seconds for the answer.
[[nodiscard]] Result<TakenOver> ask_to_take_over(int socket);

}  // namespace einhorn::os
