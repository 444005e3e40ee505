// Where masters are found: the default path of a command socket, and who listens in a directory.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace einhorn::client {

// The value of an environment variable, or null.
using EnvironmentLookup = std::function<const char*(const char*)>;

// The directory for temporary files as Ruby's Dir.tmpdir finds it: the first of $TMPDIR, $TMP,
// $TEMP, /tmp and the working directory that is a directory, that this process may write to and
// that is not writable for everybody without the sticky bit. Absolute, without a slash at its end.
[[nodiscard]] Result<std::string> temporary_directory(const EnvironmentLookup& environment);

// DIRECTORY/einhorn.sock, or DIRECTORY/einhorn-NAME.sock.
[[nodiscard]] std::string socket_path_in(const std::string& directory,
                                         const std::optional<std::string>& name);
// The same in the temporary directory.
[[nodiscard]] Result<std::string> default_socket_path(const std::optional<std::string>& name,
                                                      const EnvironmentLookup& environment);

struct FoundMaster {
  std::string path;
  std::optional<std::string> name;  // what `-c` would say; none for plain einhorn.sock
};

// Every einhorn*.sock in the directory that takes a connection from this process, by path. At most
// 64 of them; nothing waits. A directory that can't be read holds none.
[[nodiscard]] std::vector<FoundMaster> list_masters(const std::string& directory);

}  // namespace einhorn::client
