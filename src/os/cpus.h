// How many CPUs there are for us.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace einhorn::os {

// Of this process: those it may run on (affinity), but no more than the CPU quota of its cgroup, or
// of one around it, pays for; a part of a CPU counts as one. At least 1.
[[nodiscard]] std::uint32_t usable_cpus();

// The least CPU quota of this process's cgroup and those around it, in CPUs; none where there is
// none. Version 2 (cpu.max) and 1 (cpu.cfs_quota_us) are looked at. `root` stands before /proc and
// /sys.
[[nodiscard]] std::optional<double> cgroup_cpus(const std::string& root = "");

}  // namespace einhorn::os
