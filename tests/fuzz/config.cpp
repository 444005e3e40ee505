// The config file, and files of variables: what lies in front of a zero byte is the first, what
// lies behind it the other one.
#include <string>
#include <string_view>

#include "fuzz.h"
#include "master/configure.h"
#include "master/print_config.h"

namespace einhorn::fuzz {
namespace {

using master::Configuration;

Configuration configured(const std::string& config, const std::string& variables,
                         const std::vector<std::string>& words) {
  return master::configure(words, [&](const std::string& path, std::size_t) {
    return Result<std::string>(path == "x.yaml" ? config : variables);
  });
}

// Options that the file names files by would have them read, and answered with our input.
void check(const std::string& config, const std::string& variables,
           const std::vector<std::string>& words) {
  const Configuration whole = configured(config, variables, words);
  for (const Error& error : whole.errors) {
    holds_for_people(error.message());
  }
  if (!whole.errors.empty()) {
    return;
  }
  const std::string printed = master::print_config(whole);
  const Configuration again = configured(printed, variables, {"--config", "x.yaml"});
  for (const Error& error : again.errors) {
    holds(false, "what is printed is a config file", error.message() + "\n" + printed);
  }
  holds(again.options.command == whole.options.command, "the same command", printed);
  holds(again.options.config.number == whole.options.config.number, "the same number", printed);
  holds(again.options.binds.size() == whole.options.binds.size(), "the same sockets", printed);
  holds(again.options.settings.directory == whole.options.settings.directory, "the same directory",
        printed);
  holds(again.options.settings.variables.size() == whole.options.settings.variables.size(),
        "the same variables", printed);
}

}  // namespace

void run(std::string_view input) {
  const std::size_t end = std::min(input.find('\0'), input.size());
  const std::string config(input.substr(0, end));
  const std::string variables(input.substr(std::min(end + 1, input.size())));
  check(config, variables, {"--config", "x.yaml"});
  check(config, variables, {"--config", "x.yaml", "--pool", "web"});
  check("", variables, {"--config", "x.yaml", "--env-file", "e", "command"});
}

}  // namespace einhorn::fuzz
