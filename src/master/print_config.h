// What `--print-config` and `--config-schema` show.
#pragma once

#include <string>

#include "master/configure.h"

namespace einhorn::master {

// A config file that says the same, with a comment behind every value: where it comes from. Values
// of variables are left out. Contract: no errors.
[[nodiscard]] std::string print_config(const Configuration& configuration);

// JSON schema (draft 7) of config files, made from the table of options.
[[nodiscard]] std::string config_schema();

}  // namespace einhorn::master
