#include "master/configure.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "master/preload.h"
#include "os/read_file.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

constexpr const char* kCommandLine = "command line";

// One option said somewhere.
struct Said {
  const OptionRule* rule = nullptr;
  std::string value;
  std::string where;
  int layer = 0;  // the higher one counts
};

bool adds_up(const OptionRule& rule) {
  const std::string_view name = rule.name;
  return name == "env" || name == "env-file";
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

class Configuring {
 public:
  Configuring(const std::vector<std::string>& arguments, const ReadFile& read)
      : arguments_(arguments), read_(read) {}

  Configuration run() {
    Result<Options> given = read_options(arguments_);
    if (!given) {
      fail(given.error());
      return std::move(result_);
    }
    result_.options = std::move(*given);
    Options& options = result_.options;
    const bool internal = options.mode != Options::Mode::kRun &&
                          options.mode != Options::Mode::kCheckConfig &&
                          options.mode != Options::Mode::kPrintConfig;
    if (is_final(options.mode) || internal) {
      return std::move(result_);
    }
    find_config_path();
    if (!options.config_path.empty()) {
      read_config();
    } else if (!options.pool.empty()) {
      fail(make_error("--pool", "needs --config FILE, in which the pool is"));
    }
    if (result_.errors.empty()) {
      merge();
    }
    return std::move(result_);
  }

 private:
  void fail(Error error) { result_.errors.push_back(std::move(error)); }

  // `einhorn --check-config shop.yaml`
  void find_config_path() {
    Options& options = result_.options;
    const bool looks =
        options.mode == Options::Mode::kCheckConfig || options.mode == Options::Mode::kPrintConfig;
    if (!looks || !options.config_path.empty() || options.command.size() != 1) {
      return;
    }
    const std::string& word = options.command[0];
    if (word.ends_with(".yaml") || word.ends_with(".yml")) {
      options.config_path = word;
      options.command.clear();
      options.settings.original_command.clear();
    }
  }

  void read_config() {
    const std::string& path = result_.options.config_path;
    Result<std::string> text = read_(path, kMaxConfigBytes);
    if (!text) {
      Error error = text.error();
      error.operation = "--config: " + error.operation;
      fail(std::move(error));
      return;
    }
    ParsedConfig parsed = parse_config_file(*text, path);
    result_.errors = std::move(parsed.errors);
    file_ = std::move(parsed.file);
    for (const FileSection& pool : file_.pools) {
      result_.pools.push_back(pool.pool);
    }
    if (result_.errors.empty()) {
      choose_pool();
    }
  }

  void choose_pool() {
    const std::string& path = result_.options.config_path;
    const std::string& wanted = result_.options.pool;
    if (!file_.several) {
      if (!wanted.empty()) {
        fail(make_error("--pool " + wanted, path + " has no `pools`"));
      }
      return;
    }
    for (const FileSetting& setting : file_.common.settings) {
      constexpr std::array<std::string_view, 4> kOwn = {"command-name", "socket-path", "pidfile",
                                                        "lockfile"};
      if (std::find(kOwn.begin(), kOwn.end(), setting.rule->name) != kOwn.end()) {
        fail(make_error(place(path, setting.at), std::string(setting.rule->name) +
                                                     ": every pool needs its own; put it into the "
                                                     "pool"));
      }
    }
    if (!result_.errors.empty()) {
      return;
    }
    if (wanted.empty()) {
      if (result_.options.mode == Options::Mode::kRun) {
        fail(make_error(path, "it has several pools (" + joined(result_.pools) +
                                  "): `einhorn up` runs them all, --pool NAME one of them"));
      }
      return;
    }
    const auto found =
        std::find_if(file_.pools.begin(), file_.pools.end(),
                     [&wanted](const FileSection& pool) { return pool.pool == wanted; });
    if (found == file_.pools.end()) {
      fail(make_error("--pool " + wanted,
                      path + " has no such pool; it has " + joined(result_.pools)));
      return;
    }
    pool_ = &*found;
  }

  void say(const FileSection& section, int layer) {
    for (const FileSetting& setting : section.settings) {
      said_.push_back(
          {setting.rule, setting.value, place(result_.options.config_path, setting.at), layer});
    }
    if (section.command) {
      command_ = section.command->words;
      result_.command_where = place(result_.options.config_path, section.command->at);
    }
  }

  void gather() {
    const std::string& path = result_.options.config_path;
    say(file_.common, 0);
    if (pool_ != nullptr) {
      // Before the pool's own name, if it gives one.
      said_.push_back({find_option("command-name"), pool_->pool, place(path, pool_->at), 0});
      say(*pool_, 1);
    }
    for (const Options::Given& given : result_.options.given) {
      said_.push_back({given.rule, given.value, kCommandLine, 2});
    }
    if (!result_.options.command.empty()) {
      command_ = result_.options.command;
      result_.command_where = kCommandLine;
    }
  }

  // Whether a higher layer says something else of the same option.
  [[nodiscard]] bool is_overruled(const Said& said) const {
    return !adds_up(*said.rule) &&
           std::any_of(said_.begin(), said_.end(), [&said](const Said& other) {
             return other.rule == said.rule && other.layer > said.layer;
           });
  }

  void merge() {
    gather();
    Options options;
    options.config.max_unacked = 0;
    options.mode = result_.options.mode;
    options.config_path = result_.options.config_path;
    options.pool = result_.options.pool;
    options.given = result_.options.given;
    for (const Said& said : said_) {
      if (is_overruled(said)) {
        continue;
      }
      const bool has_value =
          said.rule->value != nullptr && !(said.rule->value_optional && said.value.empty());
      if (Status applied =
              apply_option(*said.rule, has_value ? said.value.c_str() : nullptr, options);
          !applied) {
        Error error = applied.error();
        if (said.where != kCommandLine) {
          error = make_error(said.where, error.message());
        }
        fail(std::move(error));
        return;
      }
      result_.origins.push_back({said.rule, said.value, said.where});
    }
    options.command = std::move(command_);
    options.settings.original_command = options.command;
    tell_language(options.settings);
    if (Status complete = complete_options(options); !complete) {
      fail(complete.error());
      return;
    }
    read_variables(options);
    if (!options.config_path.empty() || !options.env_files.empty()) {
      options.settings.arguments = arguments_;
    }
    if (options.command.empty() && options.mode == Options::Mode::kRun) {
      if (options.config_path.empty()) {
        options.mode = Options::Mode::kUsage;
      } else {
        fail(make_error(options.config_path, "it names no program: `command` is missing"));
      }
    }
    result_.options = std::move(options);
  }

  // A script whose name has no ending says in its first line what it is written in, as the files do
  // that Ruby's Einhorn preloads.
  void tell_language(wire::Settings& settings) const {
    const std::string& code = settings.preload;
    if (code.empty() || !settings.preload_language.empty() ||
        code.find('.', code.rfind('/') + 1) != std::string::npos || !language_of(code).empty()) {
      return;
    }
    const bool relative = !code.starts_with('/') && !settings.directory.empty();
    const Result<std::string> text =
        read_(relative ? settings.directory + "/" + code : code, kMaxScriptBytes);
    if (text) {
      settings.preload_language = language_of_script(*text);
    }
  }

  void read_variables(Options& options) {
    std::vector<std::string>& variables = options.settings.variables;
    for (const std::string& path : options.env_files) {
      Result<std::string> text = read_(path, kMaxEnvironmentBytes);
      if (!text) {
        Error error = text.error();
        error.operation = "--env-file: " + error.operation;
        fail(std::move(error));
        continue;
      }
      Result<std::vector<std::string>> read = parse_env_file(*text, path);
      if (!read) {
        fail(read.error());
        continue;
      }
      variables = with_variables(std::move(variables), *read);
    }
    variables = with_variables(std::move(variables), options.env);
  }

  const std::vector<std::string>& arguments_;
  const ReadFile& read_;
  ConfigFile file_;
  const FileSection* pool_ = nullptr;
  std::vector<Said> said_;
  std::vector<std::string> command_;
  Configuration result_;
};

}  // namespace

Configuration configure(const std::vector<std::string>& arguments, const ReadFile& read) {
  return Configuring(arguments, read).run();
}

Configuration configure(const std::vector<std::string>& arguments) {
  return configure(arguments, os::read_file);
}

std::vector<std::string> with_variables(std::vector<std::string> base,
                                        const std::vector<std::string>& variables) {
  for (const std::string& variable : variables) {
    const std::string_view start = std::string_view(variable).substr(0, variable.find('=') + 1);
    const auto same = std::find_if(base.begin(), base.end(), [start](const std::string& other) {
      return other.starts_with(start);
    });
    if (same != base.end()) {
      *same = variable;
    } else {
      base.push_back(variable);
    }
  }
  return base;
}

}  // namespace einhorn::master
