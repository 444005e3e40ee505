// Options about what runs beside workers: interception, the reader of their output, control groups.
// Internal to the command line (master/option_table.h), whose rules for `apply` hold here too.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "master/options.h"

namespace einhorn::master {

[[nodiscard]] Status apply_intercept(Options& options, const std::string& value);
[[nodiscard]] Status apply_listen_probe(Options& options, const std::string& value);
[[nodiscard]] Status apply_intercept_all(Options& options, const std::string& value);
[[nodiscard]] Status apply_intercept_fd(Options& options, const std::string& value);
[[nodiscard]] Status apply_capture(Options& options, const std::string& value);
[[nodiscard]] Status apply_capture_fd(Options& options, const std::string& value);
[[nodiscard]] Status apply_cgroup(Options& options, const std::string& value);
[[nodiscard]] Status apply_cgroup_cpu(Options& options, const std::string& value);
[[nodiscard]] Status apply_agent(Options& options, const std::string& value);
[[nodiscard]] Status apply_agent_args(Options& options, const std::string& value);
// Bytes: "300M", "1.5G", "1048576".
[[nodiscard]] Result<std::uint64_t> parse_memory(const std::string& value);

}  // namespace einhorn::master
