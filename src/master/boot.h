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
  // What the service manager shall not keep any longer.
  std::vector<std::string> manager_forgets;
};

// `environment` is einhorn's own, as NAME=VALUE; `script` how it was called.
[[nodiscard]] Result<Boot> boot(Options options, std::vector<std::string> environment,
                                const std::string& script);

// The paths of the pool's files, by its name: those that were given as they are, the others as
// DIRECTORY/einhorn[-NAME].SUFFIX in the temporary directory. Errors: there is none.
[[nodiscard]] Status fill_in_files(wire::Settings& settings);

}  // namespace einhorn::master
