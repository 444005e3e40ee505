// The config file: options in YAML, of one pool or of several.
//
//   command: [./server, --port, "{fd}"]      # or one line, split as a shell does
//   bind: [127.0.0.1:8080, "unix:/run/shop.sock"]
//   number: 2*cpus
//   env: {RACK_ENV: production}
//   pools:                                   # several: what stands above holds for each of them
//     web: {number: 4}
//
// A key is the long name of an option (master/option_table.h), its value is what the option takes:
// true for one that takes none, a list for one that may be repeated, a list of words for a command.
// Only parsing; no system call.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "master/option_table.h"
#include "wire/marked_yaml.h"

namespace einhorn::master {

struct FileSetting {
  const OptionRule* rule = nullptr;
  std::string value;  // as the option takes it
  wire::Mark at;
};

struct FileCommand {
  std::vector<std::string> words;
  wire::Mark at;
};

// What stands in one place: in the file, or under the name of a pool.
struct FileSection {
  std::string pool;  // its name; "" for what stands outside of `pools`
  wire::Mark at;
  std::vector<FileSetting> settings;
  std::optional<FileCommand> command;
};

struct ConfigFile {
  FileSection common;
  std::vector<FileSection> pools;
  bool several = false;  // there is a key `pools`
};

// Every value has been tried out on its own. All errors that there are, in their order, each a line
// that begins with `PATH:LINE:COLUMN: `; nothing else is said if the file is no YAML at all.
struct ParsedConfig {
  ConfigFile file;
  std::vector<Error> errors;
};
[[nodiscard]] ParsedConfig parse_config_file(std::string_view text, const std::string& path);

// "PATH:LINE:COLUMN"
[[nodiscard]] std::string place(const std::string& path, const wire::Mark& mark);

// Whether an option may stand in a file.
[[nodiscard]] bool is_for_files(const OptionRule& rule);

// NAME=VALUE, one a line; `#` begins a comment line, quotes around a value are removed, in double
// ones \n \t \" \\ and \$ are understood. Nothing is expanded. Errors show no value.
[[nodiscard]] Result<std::vector<std::string>> parse_env_file(std::string_view text,
                                                              const std::string& path);

}  // namespace einhorn::master
