// Reading a small file that somebody wrote for us.
#pragma once

#include <cstddef>
#include <string>

#include "base/result.h"

namespace einhorn::os {

// The whole of a regular file. Never waits for anything. Errors: it can't be opened; it is no
// regular file; it is larger than `most`; we are root, and everybody may write to it.
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::size_t most);

}  // namespace einhorn::os
