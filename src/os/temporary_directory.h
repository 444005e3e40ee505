// Where files are put that nobody gave a place: sockets, locks, pid files.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"

namespace einhorn::os {

// The value of an environment variable, or null.
using EnvironmentLookup = std::function<const char*(const char*)>;

// The directory for temporary files as Ruby's Dir.tmpdir finds it: the first of $TMPDIR, $TMP,
// $TEMP, /tmp and the working directory that is a directory, that this process may write to and
// that is not writable for everybody without the sticky bit. Absolute, without a slash at its end.
// Errors: none of them is.
[[nodiscard]] Result<std::string> temporary_directory(const EnvironmentLookup& environment);

}  // namespace einhorn::os
