// Options that keep workers honest (docs/limits.md). Internal to the command line
// (master/option_table.h): each notes what it says.
#pragma once

#include <string>

#include "base/result.h"
#include "master/options.h"

namespace einhorn::master {

Status apply_ping_timeout(Options& options, const std::string& value);
Status apply_request_timeout(Options& options, const std::string& value);
Status apply_dump_signal(Options& options, const std::string& value);
Status apply_max_memory(Options& options, const std::string& value);
Status apply_max_pss(Options& options, const std::string& value);
Status apply_max_cpu(Options& options, const std::string& value);
Status apply_max_descriptors(Options& options, const std::string& value);
Status apply_max_threads(Options& options, const std::string& value);
Status apply_max_age(Options& options, const std::string& value);
Status apply_max_requests(Options& options, const std::string& value);
Status apply_recycle_jitter(Options& options, const std::string& value);
Status apply_max_recycling(Options& options, const std::string& value);
Status apply_sample_interval(Options& options, const std::string& value);
Status apply_flapping(Options& options, const std::string& value);
Status apply_flapping_pause(Options& options, const std::string& value);
Status apply_flapping_retries(Options& options, const std::string& value);
Status apply_rlimit(Options& options, const std::string& value);
Status apply_probe_interval(Options& options, const std::string& value);
Status apply_probe_timeout(Options& options, const std::string& value);
Status apply_probe_failures(Options& options, const std::string& value);
Status apply_probe_fd(Options& options, const std::string& value);

// What one of them means for others, and whether they go together.
[[nodiscard]] Status complete_health(Options& options);

}  // namespace einhorn::master
