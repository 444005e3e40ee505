#include "master/options.h"

#include <getopt.h>

#include <algorithm>
#include <cctype>
#include <csignal>
#include <numeric>
#include <string_view>
#include <utility>

#include "master/option_table.h"
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
  for (std::size_t index = 0; index < kOptionCount; ++index) {
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
    for (std::size_t index = 0; index < kOptionCount; ++index) {
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

std::size_t edit_distance(std::string_view left, std::string_view right) {
  std::vector<std::size_t> row(right.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < left.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < right.size(); ++j) {
      const std::size_t changed = diagonal + (left[i] == right[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

// ` (did you mean --number?)`, or nothing if no option is like it.
std::string suggestion(std::string_view name) {
  const OptionRule* closest = nullptr;
  std::size_t least = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const OptionRule& rule : option_table()) {
    const std::size_t distance = edit_distance(name, rule.name);
    if (distance < least && distance < name.size()) {
      closest = &rule;
      least = distance;
    }
  }
  return closest != nullptr ? std::string(" (did you mean --") + closest->name + "?)" : "";
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

Status apply(const OptionRule& rule, const char* argument, Options& options) {
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

// Options act in their order, and after one of these nothing else counts.
bool is_final(Options::Mode mode) {
  switch (mode) {
    case Options::Mode::kHelp:
    case Options::Mode::kVersion:
    case Options::Mode::kUpgradeCheck:
      return true;
    case Options::Mode::kRun:
    case Options::Mode::kUsage:
    case Options::Mode::kMaster:
    case Options::Mode::kWatch:
      return false;
  }
  return false;
}

// What one option means for others.
Status complete(Options& options) {
  if (options.intercept == Options::Intercept::kOff) {
    if (options.config.ack_mode == pool::AckMode::kListen) {
      return make_error("-m/--ack-mode", "\"listen\" needs --intercept");
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
  return Ok{};
}

}  // namespace

Result<Options> parse_options(const std::vector<std::string>& arguments) {
  std::vector<std::string> texts = {"einhorn"};
  texts.insert(texts.end(), arguments.begin(), arguments.end());
  std::vector<char*> words;
  for (std::string& text : texts) {
    words.push_back(text.data());
  }
  words.push_back(nullptr);
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
    if (rule->value_optional && optarg == nullptr && optind < count &&
        os::parse_intercept_rule(texts[std::size_t(optind)])) {
      optarg = words[std::size_t(optind++)];
    }
    if (Status status = apply(*rule, optarg, options); !status) {
      return std::move(status).error();
    }
    if (is_final(options.mode)) {
      return options;
    }
  }
  options.command.assign(words.begin() + optind, words.end() - 1);
  options.settings.original_command = options.command;
  if (Status status = complete(options); !status) {
    return status.error();
  }
  if (options.command.empty() && options.mode == Options::Mode::kRun) {
    options.mode = Options::Mode::kUsage;
  }
  return options;
}

}  // namespace einhorn::master
