// Control groups, version 1 and 2, whatever controllers are there: where groups can be made, and
// what is written into them. Looks things up and makes directories; decides nothing.
//
// A group of ours is a directory beneath the group that Einhorn itself is in, once for each
// hierarchy that is used: with version 1 mostly one for each controller, with version 2 one for
// all. What is written where is a list of files, so that whoever makes a group need not know.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace einhorn::os {

struct CgroupLimits {
  std::uint64_t memory = 0;  // bytes; 0: none, as for the others
  std::uint32_t cpu = 0;     // percent of one processor
  std::uint64_t pids = 0;    // processes and threads
};

// A controller that is wanted, and the directory of the group that we are in; or why not.
struct Controller {
  std::string name;  // "memory", "cpu", "pids"
  int version = 0;
  std::string directory;
  std::string problem;  // "" none
};

// The whole of a file; none: it can't be read.
using ReadFile = std::function<std::optional<std::string>(const std::string& path)>;

// `mountinfo` and `own` as in /proc/self/mountinfo and /proc/self/cgroup.
[[nodiscard]] std::vector<Controller> find_controllers(const std::vector<std::string>& wanted,
                                                       std::string_view mountinfo,
                                                       std::string_view own, const ReadFile& read);
// The same of this process.
[[nodiscard]] std::vector<Controller> find_controllers(const std::vector<std::string>& wanted);

// Files of a group, and what is written into them, in that order.
using CgroupFiles = std::vector<std::pair<std::string, std::string>>;
[[nodiscard]] CgroupFiles limit_files(const Controller& controller, const CgroupLimits& limits);

// Makes controllers of a version 2 group available beneath it. Its own processes are moved to
// `main`, a group beneath it, as a group that has processes can't give controllers on.
[[nodiscard]] Status delegate_cgroup(const std::string& directory, const std::string& main,
                                     const std::vector<std::string>& controllers);

// Makes a group; one that is there already stays. Errors: which file, and what was to be written.
// Then nothing is left behind.
[[nodiscard]] Status make_cgroup(const std::string& directory, const CgroupFiles& files);
// False: somebody is in it still. One that is not there is removed.
[[nodiscard]] bool remove_cgroup(const std::string& directory);
// Names of the groups beneath.
[[nodiscard]] std::vector<std::string> list_cgroups(const std::string& directory);

// How many processes of a group have been killed for want of memory, from the text of
// memory.events (version 2) or memory.oom_control (version 1).
[[nodiscard]] std::optional<std::uint64_t> parse_oom_kills(std::string_view text);
// None: it does not say.
[[nodiscard]] std::optional<std::uint64_t> oom_kills(const std::string& directory);

}  // namespace einhorn::os
