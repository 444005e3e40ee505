// The workers' program as it is at this moment: what a version is made of.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "os/kernel.h"
#include "wire/snapshot.h"

namespace einhorn::master {

// Directory, path, arguments and environment, of no version yet. `environment` is what workers
// start from, `directory` where they do without --chdir. With --chroot both directory and program
// lie in there. Errors: there is no such directory or program.
[[nodiscard]] Result<wire::Program> find_worker_program(os::Kernel& kernel,
                                                        const wire::Settings& settings,
                                                        const std::vector<std::string>& environment,
                                                        const std::string& directory);

// PATH of an environment, or the usual one.
[[nodiscard]] std::string search_path(const std::vector<std::string>& environment);

// Variables that are each worker's own; whatever Einhorn itself was started with is not passed on.
[[nodiscard]] bool is_workers_own(std::string_view variable);

// The path of a program with its directory's links resolved, so that a link that moves later does
// not change which program a version runs. The last name is kept: programs look at it.
[[nodiscard]] std::string pin_program(os::Kernel& kernel, const std::string& path,
                                      const std::string& directory);

}  // namespace einhorn::master
