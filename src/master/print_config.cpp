#include "master/print_config.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "master/boot.h"
#include "master/expression.h"
#include "os/cpus.h"
#include "wire/json.h"
#include "wire/value.h"

namespace einhorn::master {
namespace {

constexpr std::size_t kCommentColumn = 48;

// What is done where nothing is said, of options that have such a value.
struct Default {
  const char* name;
  const char* value;
};
constexpr auto kDefaults = std::to_array<Default>({
    {"number", "1"},
    {"backlog", "100"},
    {"ack-mode", "1"},
    {"ack-timeout", "300"},
    {"give-up", "0"},
    {"stop-signal", "USR2"},
    {"canary", "1"},
    {"canary-seconds", "0"},
    {"upgrade-failures", "3"},
    {"socket-mode", "0600"},
    {"log-format", "text"},
    {"hook-timeout", "30"},
    {"hook-upgrade-timeout", "300"},
});

// Whether YAML, and our reader of it, take the text for the same text when it stands bare.
bool may_stand_bare(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./*+-:@=";
  constexpr std::string_view kFirst =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./";
  constexpr std::array kWords = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return !text.empty() && text.find_first_not_of(kPlain) == std::string::npos &&
         kFirst.find(text.front()) != std::string_view::npos && text.back() != ':' &&
         std::find(kWords.begin(), kWords.end(), lower) == kWords.end();
}

std::string spelled(const std::string& text) {
  return may_stand_bare(text) ? text : wire::encode_json(wire::Value(text));
}

class Printing {
 public:
  explicit Printing(const Configuration& configuration) : configuration_(configuration) {}

  std::string run() {
    const Options& options = configuration_.options;
    if (!options.command.empty()) {
      std::string words;
      for (const std::string& word : options.command) {
        words += (words.empty() ? "" : ", ") + spelled(word);
      }
      line("command: [" + words + "]", configuration_.command_where);
    }
    for (const OptionRule& rule : option_table()) {
      const std::string_view name = rule.name;
      if (name == "env") {
        print_variables();
      } else if (is_for_files(rule)) {
        print_option(rule);
      }
    }
    return std::move(out_);
  }

 private:
  void line(std::string text, const std::string& comment) {
    if (!comment.empty()) {
      text.resize(std::max(text.size() + 2, kCommentColumn), ' ');
      text += "# " + comment;
    }
    out_ += text + "\n";
  }

  // What an expression has come to.
  [[nodiscard]] std::optional<std::uint32_t> count_of(std::string_view name) const {
    const pool::Config& config = configuration_.options.config;
    if (name == "number") {
      return config.number;
    }
    if (name == "max-unacked") {
      return config.max_unacked;
    }
    return name == "max-upgrade-additional" ? config.max_upgrade_additional : std::nullopt;
  }

  void print_option(const OptionRule& rule) {
    std::vector<const Origin*> said;
    for (const Origin& origin : configuration_.origins) {
      if (origin.rule == &rule) {
        said.push_back(&origin);
      }
    }
    if (said.empty()) {
      print_default(rule);
      return;
    }
    const std::string name = rule.name;
    if (rule.form == Form::kRepeat) {
      line(name + ":", "");
      for (const Origin* origin : said) {
        // Of an option whose value may be missing, the same as without one.
        line("  - " + spelled(origin->value.empty() ? "auto" : origin->value), origin->where);
      }
      return;
    }
    const Origin& last = *said.back();
    if (rule.value == nullptr) {
      line(name + ": true", last.where);
      return;
    }
    const std::optional<std::uint32_t> count = count_of(name);
    if (count && is_expression(last.value)) {
      line(name + ": " + std::to_string(*count), last.where + " (" + last.value + ")");
    } else {
      line(name + ": " + spelled(last.value), last.where);
    }
  }

  void print_default(const OptionRule& rule) {
    const std::string_view name = rule.name;
    const Options& options = configuration_.options;
    const bool intercepted = options.intercept != Options::Intercept::kOff;
    if (intercepted && (name == "ack-mode" || name == "stop-signal")) {
      line(std::string(name) + (name == "ack-mode" ? ": listen" : ": TERM"),
           "default with intercept");
      return;
    }
    const bool has_workers = std::any_of(
        configuration_.origins.begin(), configuration_.origins.end(),
        [](const Origin& origin) { return std::string_view(origin.rule->name) == "workers"; });
    if (name == "number" && has_workers) {
      return;  // which says it
    }
    if (name == "max-unacked") {
      line("max-unacked: " + std::to_string(os::usable_cpus()), "default (cpus)");
      return;
    }
    wire::Settings files = options.settings;
    if (fill_in_files(files)) {
      for (const auto& [path_name, path] :
           {std::pair<std::string_view, std::string*>("socket-path", &files.socket_path),
            {"pidfile", &files.pidfile},
            {"lockfile", &files.lockfile}}) {
        if (name == path_name) {
          line(std::string(name) + ": " + spelled(*path), "default");
          return;
        }
      }
    }
    const auto found =
        std::find_if(kDefaults.begin(), kDefaults.end(),
                     [name](const Default& candidate) { return candidate.name == name; });
    if (found != kDefaults.end()) {
      line(std::string(name) + ": " + found->value, "default");
    }
  }

  // By name only: a variable may be a secret.
  void print_variables() {
    std::vector<std::pair<std::string, std::string>> names;
    for (const Origin& origin : configuration_.origins) {
      if (std::string_view(origin.rule->name) == "env") {
        std::string name = origin.value.substr(0, origin.value.find('='));
        std::erase_if(names, [&name](const auto& known) { return known.first == name; });
        names.emplace_back(std::move(name), origin.where);
      }
    }
    if (!names.empty()) {
      line("env:", "");
    }
    for (const auto& [name, where] : names) {
      line("  " + name + ": '***'", where + ", not shown");
    }
  }

  const Configuration& configuration_;
  std::string out_;
};

wire::Value text(std::string_view value) { return wire::Value(value); }

wire::Value type(std::initializer_list<std::string_view> names) {
  wire::List list;
  for (const std::string_view name : names) {
    list.emplace_back(name);
  }
  wire::Map map;
  put(map, "type", list.size() == 1 ? list[0] : wire::Value(list));
  return map;
}

wire::Value list_of(wire::Value items) {
  wire::Map map;
  put(map, "type", "array");
  put(map, "items", std::move(items));
  return map;
}

wire::Value any_of(wire::List choices) {
  wire::Map map;
  put(map, "anyOf", std::move(choices));
  return map;
}

wire::Value schema_of(const OptionRule& rule) {
  if (rule.value == nullptr) {
    return type({"boolean"});
  }
  const std::string_view value = rule.value;
  const bool is_seconds = value == "SECONDS" || value == "S" || value == "T";
  wire::Value one = is_seconds            ? type({"number"})
                    : value == "N"        ? type({"integer", "number", "string"})
                    : rule.value_optional ? type({"string", "number", "boolean"})
                                          : type({"string", "number"});
  switch (rule.form) {
    case Form::kOnce:
      return one;
    case Form::kRepeat:
      return any_of({one, list_of(one)});
    case Form::kWords:
      return any_of({type({"string"}), list_of(type({"string", "number"}))});
  }
  return one;
}

}  // namespace

std::string print_config(const Configuration& configuration) {
  return Printing(configuration).run();
}

std::string config_schema() {
  wire::Map options;
  put(options, "command",
      wire::Map{
          {text("description"), text("The program and its arguments")},
          {text("anyOf"), wire::List{type({"string"}), list_of(type({"string", "number"}))}}});
  wire::Map hooks;
  for (const OptionRule& rule : option_table()) {
    if (!is_for_files(rule)) {
      continue;
    }
    wire::Map described{{text("description"), text(rule.text)}};
    const wire::Value schema = std::string_view(rule.name) == "env"
                                   ? wire::Value(wire::Map{{text("type"), text("object")},
                                                           {text("additionalProperties"),
                                                            type({"string", "number", "boolean"})}})
                                   : schema_of(rule);
    for (const auto& [key, value] : *schema.as_map()) {
      put(described, key, value);
    }
    constexpr std::string_view kHook = "hook-";
    if (const std::string_view name = rule.name; name.starts_with(kHook)) {
      put(hooks, name.substr(kHook.size()), described);
    }
    put(options, rule.name, std::move(described));
  }
  put(options, "hooks",
      wire::Map{{text("description"), text("The same as the options hook-..., together")},
                {text("type"), text("object")},
                {text("additionalProperties"), wire::Value(false)},
                {text("properties"), std::move(hooks)}});
  wire::Map pool{{text("type"), wire::List{text("object"), text("null")}},
                 {text("additionalProperties"), wire::Value(false)},
                 {text("properties"), options}};
  wire::Map all = options;
  put(all, "pools",
      wire::Map{
          {text("description"),
           text("Several pools, by name; what stands outside holds for each of them")},
          {text("type"), text("object")},
          {text("minProperties"), wire::Value(1)},
          {text("additionalProperties"), wire::Map{{text("$ref"), text("#/definitions/pool")}}}});
  const wire::Map schema{{text("$schema"), text("http://json-schema.org/draft-07/schema#")},
                         {text("title"), text("Einhorn's config file")},
                         {text("type"), text("object")},
                         {text("additionalProperties"), wire::Value(false)},
                         {text("properties"), std::move(all)},
                         {text("definitions"), wire::Map{{text("pool"), std::move(pool)}}}};
  return wire::encode_json(wire::Value(schema)) + "\n";
}

}  // namespace einhorn::master
