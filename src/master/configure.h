// From a command line to everything that a pool is to be: the options of the config file, of one of
// its pools, and of the command line, each layer before the one below it.
//
// An option that is given in a layer replaces what lower layers say of it, all of it where it may
// be repeated; only variables add up, by name. Files are read; nothing is changed.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "master/config_file.h"
#include "master/options.h"

namespace einhorn::master {

inline constexpr std::size_t kMaxConfigBytes = 1U << 20U;       // a config file
inline constexpr std::size_t kMaxEnvironmentBytes = 1U << 20U;  // a file of variables
inline constexpr std::size_t kMaxScriptBytes = 4U << 20U;       // code to be preloaded

// Where one value comes from.
struct Origin {
  const OptionRule* rule = nullptr;
  std::string value;
  std::string where;  // "command line", "shop.yaml:3:9"
};

struct Configuration {
  Options options;  // complete; `settings.variables` has what env and env-file say
  std::vector<Origin> origins;
  std::string command_where;       // where the program was named
  std::vector<std::string> pools;  // the names of all pools in the file
  std::vector<Error> errors;       // all that is wrong; empty: the rest is good
};

using ReadFile = std::function<Result<std::string>(const std::string& path, std::size_t most)>;

// `arguments` as for parse_options. Never fails otherwise than by `errors`.
[[nodiscard]] Configuration configure(const std::vector<std::string>& arguments,
                                      const ReadFile& read);
// With the files of this machine.
[[nodiscard]] Configuration configure(const std::vector<std::string>& arguments);

using ReadConfig = std::function<Configuration(const std::vector<std::string>& arguments)>;

// `base` with `variables` (each NAME=VALUE) in the place of those of the same name.
[[nodiscard]] std::vector<std::string> with_variables(std::vector<std::string> base,
                                                      const std::vector<std::string>& variables);

}  // namespace einhorn::master
