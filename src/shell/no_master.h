// What einhornsh says when it can't reach a master: why, and which masters it could reach.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "client/socket_paths.h"

namespace einhorn::shell {

// The whole text. `others` are masters that do answer; `default_directory` is where `-c` looks.
[[nodiscard]] std::string describe_no_master(const Error& error, const std::string& socket_path,
                                             const std::vector<client::FoundMaster>& others,
                                             const std::optional<std::string>& default_directory);

// The living masters near a socket that didn't work: in its own directory, in the one where `-c`
// looks, and in /tmp.
[[nodiscard]] std::vector<client::FoundMaster> find_other_masters(
    const std::string& socket_path, const std::optional<std::string>& default_directory);

}  // namespace einhorn::shell
