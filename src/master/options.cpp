#include "master/options.h"

#include <getopt.h>

#include <algorithm>
#include <cctype>
#include <csignal>
#include <string_view>
#include <utility>

#include "base/similar.h"
#include "master/option_health.h"
#include "master/option_hooks.h"
#include "master/option_table.h"
#include "master/preload.h"
#include "os/c_strings.h"
#include "os/intercept.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

// What getopt_long calls the option at `index` of the table: its letter, or a value beyond letters.
constexpr int kFirstLongOnly = 256;

int code_of(std::size_t index) {
  const char letter = option_table()[index].letter;
  return letter != 0 ? letter : kFirstLongOnly + static_cast<int>(index);
}

const OptionRule* rule_of(int code) {
  for (std::size_t index = 0; index < option_table().size(); ++index) {
    if (code_of(index) == code) {
      return &option_table()[index];
    }
  }
  return nullptr;
}

// The table in getopt_long's own form.
struct Grammar {
  std::string letters = "+:";  // `+`: stop at the first word that is no option; `:`: stay silent
  std::vector<option> names;

  Grammar() {
    for (std::size_t index = 0; index < option_table().size(); ++index) {
      const OptionRule& rule = option_table()[index];
      if (rule.letter != 0) {
        letters += rule.letter;
        letters += rule.value != nullptr ? ":" : "";
      }
      const int argument = rule.value == nullptr ? no_argument
                           : rule.value_optional ? optional_argument
                                                 : required_argument;
      names.push_back({rule.name, argument, nullptr, code_of(index)});
    }
    names.push_back({});
  }
};

// The state of getopt is global: this makes it new, and puts it back as it was.
class GetoptState {
 public:
  GetoptState() : index_(optind), error_(opterr) {
    optind = 0;  // glibc: start from the beginning
    opterr = 0;
  }
  ~GetoptState() {
    optind = index_;
    opterr = error_;
  }
  GetoptState(const GetoptState&) = delete;
  GetoptState& operator=(const GetoptState&) = delete;

 private:
  int index_;
  int error_;
};

// ` (did you mean --number?)`, or nothing if no option is like it.
std::string suggestion(std::string_view name) {
  std::vector<std::string_view> names;
  for (const OptionRule& rule : option_table()) {
    names.emplace_back(rule.name);
  }
  const std::string_view closest = most_similar(name, names);
  return closest.empty() ? "" : " (did you mean --" + std::string(closest) + "?)";
}

Error unknown_letter(char letter) {
  std::string hint;
  const auto code = static_cast<unsigned char>(letter);
  const int other = std::islower(code) != 0 ? std::toupper(code) : std::tolower(code);
  if (other != letter && rule_of(other) != nullptr) {
    hint = std::string(" (did you mean -") + static_cast<char>(other) + "?)";
  }
  return make_error("",
                    "unknown option " + wire::text::ruby_quoted(std::string{'-', letter}) + hint);
}

// `word` begins with `--` and is no option: either too short, or unknown.
Error unknown_name(std::string_view word) {
  const std::string_view name = word.substr(2, word.find('=') - 2);
  std::string candidates;
  std::size_t count = 0;
  for (const OptionRule& rule : option_table()) {
    if (!name.empty() && std::string_view(rule.name).starts_with(name)) {
      candidates += (count++ == 0 ? "--" : ", --") + std::string(rule.name);
    }
  }
  const std::string written = wire::text::ruby_quoted("--" + std::string(name));
  if (count > 1) {
    return make_error("", "ambiguous option " + written + ": it may be " + candidates);
  }
  return make_error("", "unknown option " + written + suggestion(name));
}

// Why getopt_long gave '?' at this word.
Error refused(std::string_view word) {
  if (optopt == 0) {
    return unknown_name(word);
  }
  if (const OptionRule* rule = rule_of(optopt); rule != nullptr) {
    return make_error(label(*rule), "it takes no value");
  }
  // `-k=yes`: the letter before the `=` is a flag.
  const std::size_t equals = word.find('=');
  if (optopt == '=' && equals != std::string_view::npos && equals >= 2) {
    if (const OptionRule* rule = rule_of(word[equals - 1]); rule != nullptr) {
      return make_error(label(*rule), "it takes no value");
    }
  }
  return unknown_letter(static_cast<char>(optopt));
}

}  // namespace

bool is_final(Options::Mode mode) {
  switch (mode) {
    case Options::Mode::kHelp:
    case Options::Mode::kVersion:
    case Options::Mode::kConfigSchema:
    case Options::Mode::kUpgradeCheck:
      return true;
    case Options::Mode::kCheckConfig:
    case Options::Mode::kPrintConfig:
    case Options::Mode::kRun:
    case Options::Mode::kUsage:
    case Options::Mode::kMaster:
    case Options::Mode::kWatch:
    case Options::Mode::kRead:
    case Options::Mode::kProbe:
      return false;
  }
  return false;
}

Status apply_option(const OptionRule& rule, const char* argument, Options& options) {
  const std::string value = argument != nullptr && rule.value != nullptr ? argument : "";
  if (rule.value != nullptr && value.empty() && !(rule.value_optional && argument == nullptr)) {
    return make_error(label(rule), "its value is empty");
  }
  Status status = rule.apply(options, value);
  if (!status && status.error().operation.empty()) {
    Error error = std::move(status).error();
    error.operation = label(rule);
    return error;
  }
  return status;
}

// --workers MIN:MAX and --number: where scaling begins.
Status complete_scaling(Options& options) {
  pool::Config& config = options.config;
  if (config.workers_max == 0) {
    return Ok{};
  }
  if (!options.number_given) {
    config.number = config.workers_min;
  }
  if (config.number < config.workers_min || config.number > config.workers_max) {
    return make_error("-n/--number", std::to_string(config.number) + " is not in --workers " +
                                         std::to_string(config.workers_min) + ":" +
                                         std::to_string(config.workers_max));
  }
  return Ok{};
}

// Without a command the code itself is what people see.
Status complete_preload(Options& options) {
  wire::Settings& settings = options.settings;
  if (!settings.preloads()) {
    for (const auto& [given, name] :
         {std::pair(!settings.preload_language.empty(), "--preload-language"),
          std::pair(!settings.preload_interpreter.empty(), "--preload-interpreter"),
          std::pair(settings.preload_fallback, "--preload-fallback")}) {
      if (given) {
        return make_error(name, "needs -p/--preload");
      }
    }
    return Ok{};
  }
  if (!settings.preload.empty() && !settings.preload_command.empty()) {
    return make_error("--preload-command", "it takes the place of -p/--preload: give one of them");
  }
  if (!settings.preload.empty() && settings.preload_language.empty()) {
    if (Status known = check_language(language_of(settings.preload)); !known) {
      return make_error("-p " + wire::text::ruby_quoted(settings.preload), known.error().detail);
    }
  }
  if (options.intercept != Options::Intercept::kOff) {
    return make_error("-p/--preload",
                      "can't be combined with --intercept: preloaded workers have "
                      "the sockets of -b already");
  }
  if (settings.preload_fallback && options.command.empty()) {
    return make_error("--preload-fallback", "needs the command that is to be executed instead");
  }
  for (const std::string& word : options.command) {
    if (word.find("{index}") != std::string::npos) {
      return make_error("argument " + wire::text::ruby_quoted(word),
                        "{index} can't be replaced in a preloaded worker's arguments; use "
                        "EINHORN_CHILD_INDEX");
    }
  }
  if (options.command.empty()) {
    options.command = {settings.preload.empty() ? settings.preload_command.front()
                                                : settings.preload};
    settings.original_command = options.command;
  }
  return Ok{};
}

Status complete_options(Options& options) {
  if (Status scaling = complete_scaling(options); !scaling) {
    return scaling;
  }
  if (Status usable = complete_health(options); !usable) {
    return usable;
  }
  if (Status hooks = complete_hooks(options); !hooks) {
    return hooks;
  }
  if (Status preload = complete_preload(options); !preload) {
    return preload;
  }
  if (options.settings.agent.empty() && !options.settings.agent_arguments.empty()) {
    return make_error("--agent-args", "it needs --agent");
  }
  if (options.intercept == Options::Intercept::kOff) {
    if (options.config.ack_mode == pool::AckMode::kListen) {
      return make_error("-m/--ack-mode", "\"listen\" needs --intercept");
    }
    if (options.settings.intercept_drain > Duration::zero()) {
      return make_error("--drain", "it needs --intercept");
    }
    if (!options.settings.listen_probe.empty()) {
      return make_error("--listen-probe", "it needs --intercept");
    }
    return Ok{};
  }
  // A program that knows nothing of Einhorn neither ACKs nor knows that USR2 asks it to finish.
  if (!options.ack_mode_given) {
    options.config.ack_mode = pool::AckMode::kListen;
  }
  if (!options.stop_signal_given) {
    options.config.stop_signal = SIGTERM;
  }
  if (!options.settings.listen_probe.empty() && options.config.ack_mode != pool::AckMode::kListen) {
    return make_error("--listen-probe", "it needs -m listen");
  }
  for (const auto& [name, limit] : {std::pair("-t/--signal-timeout", options.config.signal_timeout),
                                    std::pair("--drain-timeout", options.config.drain_timeout)}) {
    if (limit && *limit <= options.settings.intercept_drain) {
      return make_error(name,
                        "a worker would be killed while it still drains (allowed: more than "
                        "--drain)");
    }
  }
  return Ok{};
}

Result<Options> read_options(const std::vector<std::string>& arguments) {
  std::vector<std::string> texts = {"einhorn"};
  texts.insert(texts.end(), arguments.begin(), arguments.end());
  std::vector<char*> words = os::c_strings(texts);
  const int count = static_cast<int>(texts.size());

  const Grammar grammar;
  const GetoptState state;
  Options options;
  options.config.max_unacked = 0;
  while (true) {
    const std::string& word = texts[std::min(texts.size() - 1, std::size_t(std::max(optind, 1)))];
    const int code =
        ::getopt_long(count, words.data(), grammar.letters.c_str(), grammar.names.data(), nullptr);
    if (code == -1) {
      break;
    }
    if (code == '?') {
      return refused(word);
    }
    const OptionRule* rule = rule_of(code == ':' ? optopt : code);
    CHECK(rule != nullptr);
    if (code == ':') {
      return make_error(label(*rule), std::string("its value is missing: ") + rule->value);
    }
    if (std::string_view(rule->name) == "intercept" && optarg == nullptr && optind < count &&
        os::parse_intercept_rule(texts[std::size_t(optind)])) {
      optarg = words[std::size_t(optind++)];
    }
    if (Status status = apply_option(*rule, optarg, options); !status) {
      return std::move(status).error();
    }
    options.given.push_back({rule, optarg != nullptr ? optarg : ""});
    if (is_final(options.mode)) {
      return options;
    }
  }
  options.command.assign(words.begin() + optind, words.end() - 1);
  options.settings.original_command = options.command;
  return options;
}

Result<Options> parse_options(const std::vector<std::string>& arguments) {
  Result<Options> options = read_options(arguments);
  if (!options || is_final(options->mode)) {
    return options;
  }
  if (Status status = complete_options(*options); !status) {
    return status.error();
  }
  if (options->command.empty() && options->mode == Options::Mode::kRun) {
    options->mode = Options::Mode::kUsage;
  }
  return options;
}

}  // namespace einhorn::master
