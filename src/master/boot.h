// From a command line to everything a guard must hold: sockets, files, the first snapshot.
//
// Nothing is left behind when it fails. Blocks (names are looked up); runs before the guard does.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "master/options.h"
#include "os/unique_fd.h"
#include "wire/snapshot.h"

namespace einhorn::master {

struct Boot {
  // What the guard keeps, under the names that a master looks for.
  std::vector<std::pair<std::string, os::UniqueFd>> descriptors;
  wire::Settings settings;
  // A master without a guard that waits until one of ours acts; none: a new pool.
  os::UniqueFd predecessor;
};

// `environment` is einhorn's own, as NAME=VALUE; `script` how it was called.
[[nodiscard]] Result<Boot> boot(Options options, std::vector<std::string> environment,
                                const std::string& script);

// DIRECTORY/einhorn[-NAME].SUFFIX in the temporary directory; in /tmp if there is none.
[[nodiscard]] std::string default_path(const std::string& name, const std::string& suffix);

}  // namespace einhorn::master
