#include "master/option_hooks.h"

#include <utility>
#include <vector>

#include "master/option_values.h"
#include "master/shell_words.h"

namespace einhorn::master {

Status apply_hook(Options& options, pool::Hook hook, const std::string& value) {
  Result<std::vector<std::string>> words = split_shell_words(value);
  if (!words) {
    return wrong(value, words.error().message());
  }
  if (words->empty() || words->front().empty()) {
    return wrong(value, "names no program");
  }
  options.hooks.at(static_cast<std::size_t>(hook)) = value;
  return Ok{};
}

Status apply_hook_timeout(Duration& timeout, const std::string& value) {
  constexpr double kMostSeconds = 86'400;
  Result<Duration> read = parse_seconds(value, Zero::kRefused);
  if (read && *read > from_seconds(kMostSeconds)) {
    return wrong(value, "is out of range (allowed: more than 0, up to 86400 seconds)");
  }
  return assign(std::move(read), timeout);
}

Status complete_hooks(Options& options) {
  bool any = false;
  auto& commands = options.settings.hooks;
  commands.assign(options.hooks.size(), {});
  for (std::size_t i = 0; i < options.hooks.size(); ++i) {
    const std::string& line = options.hooks.at(i);
    if (line.empty()) {
      continue;
    }
    any = true;
    if (options.hook_shell) {
      commands[i] = {"/bin/sh", "-c", line};
    } else if (Result<std::vector<std::string>> words = split_shell_words(line)) {
      commands[i] = std::move(*words);
    }
  }
  if (!any) {
    commands.clear();
    if (options.hook_shell) {
      return make_error("--hook-shell", "needs a hook, such as --hook-before-start");
    }
  }
  const auto has = [&options](pool::Hook hook) { return !options.settings.hook(hook).empty(); };
  options.config.hook_before_start = has(pool::Hook::kBeforeStart);
  options.config.hook_before_stop = has(pool::Hook::kBeforeStop);
  return Ok{};
}

}  // namespace einhorn::master
