// Where masters are found: the default path of a command socket, and who listens in a directory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "os/temporary_directory.h"

namespace einhorn::client {

// DIRECTORY/einhorn.sock, or DIRECTORY/einhorn-NAME.sock.
[[nodiscard]] std::string socket_path_in(const std::string& directory,
                                         const std::optional<std::string>& name);
// The same in the temporary directory. Errors: there is none.
[[nodiscard]] Result<std::string> default_socket_path(const std::optional<std::string>& name,
                                                      const os::EnvironmentLookup& environment);

// What the pool with this command socket is called: `-c NAME`, or the file's name without ".sock".
[[nodiscard]] std::string pool_name(const std::string& path);

struct FoundMaster {
  std::string path;
  std::optional<std::string> name;  // what `-c` would say; none for plain einhorn.sock
};

// Every einhorn*.sock in the directory whose master takes a connection and commands from this
// process, by path. At most 64 of them; nothing waits. A directory that can't be read holds none.
[[nodiscard]] std::vector<FoundMaster> list_masters(const std::string& directory);

}  // namespace einhorn::client
