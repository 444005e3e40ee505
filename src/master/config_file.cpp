#include "master/config_file.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "base/similar.h"
#include "master/shell_words.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

using wire::MarkedNode;
using Kind = MarkedNode::Kind;

constexpr std::size_t kMostErrors = 20;
constexpr std::size_t kMostPools = 64;

std::optional<bool> as_bool(const MarkedNode& node) {
  if (node.kind != Kind::kScalar || node.quoted) {
    return std::nullopt;
  }
  constexpr std::array kYes = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"};
  constexpr std::array kNo = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"};
  if (std::find(kYes.begin(), kYes.end(), node.text) != kYes.end()) {
    return true;
  }
  if (std::find(kNo.begin(), kNo.end(), node.text) != kNo.end()) {
    return false;
  }
  return std::nullopt;
}

std::string quoted_word(const std::string& word) {
  std::string text = "'";
  for (const char c : word) {
    text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return text + "'";
}

std::string single_quoted(const std::string& name) {
  const std::string text = wire::text::ruby_quoted(name);
  return "'" + text.substr(1, text.size() - 2) + "'";
}

class Parsing {
 public:
  explicit Parsing(const std::string& path) : path_(path) {}

  ParsedConfig run(std::string_view text) {
    Result<MarkedNode> root = wire::parse_marked_yaml(text);
    if (!root) {
      parsed_.errors.push_back(
          make_error(path_ + ":" + root.error().operation, root.error().detail));
    } else if (root->kind == Kind::kMap) {
      read_section(*root, parsed_.file.common, true);
    } else if (root->kind != Kind::kNull) {
      complain(root->at, "options should stand here, each as `NAME: VALUE`");
    }
    return std::move(parsed_);
  }

 private:
  void complain(const wire::Mark& at, std::string why) {
    if (parsed_.errors.size() < kMostErrors) {
      parsed_.errors.push_back(make_error(place(path_, at), std::move(why)));
    }
  }

  void read_section(const MarkedNode& map, FileSection& section, bool is_outermost) {
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
      const MarkedNode& key = map.keys[i];
      const MarkedNode& value = map.items[i];
      if (key.text == "command") {
        read_command(value, section);
      } else if (key.text == "env") {
        read_env(value, section);
      } else if (key.text == "hooks") {
        read_hooks(value, section);
      } else if (key.text == "pools" && is_outermost) {
        read_pools(value);
      } else if (const OptionRule* rule = find_option(key.text);
                 rule != nullptr && is_for_files(*rule)) {
        read_option(*rule, value, section);
      } else {
        complain(key.at, unknown(key.text, rule != nullptr, is_outermost));
      }
    }
  }

  static std::string unknown(const std::string& key, bool is_option, bool is_outermost) {
    const std::string name = single_quoted(key);
    if (is_option) {
      return name + " is for the command line only";
    }
    if (key == "pools") {
      return "'pools' may not stand inside of a pool";
    }
    std::vector<std::string_view> names = {"command", "hooks"};
    if (is_outermost) {
      names.emplace_back("pools");
    }
    for (const OptionRule& rule : option_table()) {
      if (is_for_files(rule)) {
        names.emplace_back(rule.name);
      }
    }
    const std::string_view meant = most_similar(key, names);
    return "unknown key " + name +
           (meant.empty() ? "" : ", did you mean '" + std::string(meant) + "'?");
  }

  // A single value as text. False: it is none, which has been said.
  bool read_scalar(const std::string& what, const MarkedNode& node, std::string& text) {
    if (node.kind == Kind::kScalar && node.text.find('\0') == std::string::npos) {
      text = node.text;
      return true;
    }
    complain(node.at, what + (node.kind == Kind::kScalar ? ": a zero byte is in its value"
                              : node.kind == Kind::kNull ? ": its value is missing"
                              : node.kind == Kind::kList ? ": one value is needed, not a list"
                                                         : ": one value is needed, not a map"));
    return false;
  }

  bool read_words(const std::string& what, const MarkedNode& node,
                  std::vector<std::string>& words) {
    if (node.kind != Kind::kList) {
      std::string line;
      if (!read_scalar(what, node, line)) {
        return false;
      }
      Result<std::vector<std::string>> split = split_shell_words(line);
      if (!split) {
        complain(node.at, what + ": " + split.error().message());
        return false;
      }
      words = std::move(*split);
    }
    for (const MarkedNode& item : node.items) {
      std::string word;
      if (!read_scalar(what, item, word)) {
        return false;
      }
      words.push_back(std::move(word));
    }
    if (words.empty() || words.front().empty()) {
      complain(node.at, what + ": it names no program");
      return false;
    }
    return true;
  }

  void read_command(const MarkedNode& node, FileSection& section) {
    FileCommand command{{}, node.at};
    if (read_words("command", node, command.words)) {
      section.command = std::move(command);
    }
  }

  void read_env(const MarkedNode& node, FileSection& section) {
    const OptionRule* rule = find_option("env");
    if (node.kind != Kind::kMap) {
      complain(node.at, "env: variables should stand here, each as `NAME: VALUE`");
      return;
    }
    for (std::size_t i = 0; i < node.keys.size(); ++i) {
      const std::string& name = node.keys[i].text;
      std::string value;
      if (name.find('=') != std::string::npos || name.find('\0') != std::string::npos) {
        complain(node.keys[i].at, "env: " + single_quoted(name) + " is no name of a variable");
      } else if (read_scalar("env: " + name, node.items[i], value)) {
        try_out(*rule, (name + "=").append(value), node.keys[i].at, section);
      }
    }
  }

  // `hooks: {before-start: CMD}` is `hook-before-start: CMD`.
  void read_hooks(const MarkedNode& node, FileSection& section) {
    constexpr std::string_view kPrefix = "hook-";
    if (node.kind != Kind::kMap) {
      complain(node.at, "hooks: commands should stand here, each as `NAME: CMD`");
      return;
    }
    for (std::size_t i = 0; i < node.keys.size(); ++i) {
      const std::string& key = node.keys[i].text;
      if (const OptionRule* rule = find_option(std::string(kPrefix) + key)) {
        read_option(*rule, node.items[i], section);
        continue;
      }
      std::vector<std::string_view> names;
      for (const OptionRule& rule : option_table()) {
        const std::string_view name = rule.name;
        if (name.starts_with(kPrefix)) {
          names.push_back(name.substr(kPrefix.size()));
        }
      }
      const std::string_view meant = most_similar(key, names);
      complain(node.keys[i].at,
               "hooks: unknown key " + single_quoted(key) +
                   (meant.empty() ? "" : ", did you mean '" + std::string(meant) + "'?"));
    }
  }

  void read_option(const OptionRule& rule, const MarkedNode& node, FileSection& section) {
    const std::string name = rule.name;
    const std::optional<bool> flag = as_bool(node);
    if (rule.value == nullptr || (rule.value_optional && flag)) {
      if (!flag) {
        complain(node.at, name + ": true or false is needed");
      } else if (*flag) {
        try_out(rule, "", node.at, section);
      }
      return;
    }
    if (rule.form == Form::kWords && node.kind == Kind::kList) {
      std::vector<std::string> words;
      if (read_words(name, node, words)) {
        std::string line;
        for (const std::string& word : words) {
          line += (line.empty() ? "" : " ") + quoted_word(word);
        }
        try_out(rule, line, node.at, section);
      }
      return;
    }
    if (rule.form == Form::kRepeat && node.kind == Kind::kList) {
      for (const MarkedNode& item : node.items) {
        std::string value;
        if (read_scalar(name, item, value)) {
          try_out(rule, value, item.at, section);
        }
      }
      return;
    }
    std::string value;
    if (read_scalar(name, node, value)) {
      try_out(rule, value, node.at, section);
    }
  }

  // Takes the setting if its value is right by itself.
  void try_out(const OptionRule& rule, std::string value, const wire::Mark& at,
               FileSection& section) {
    Options alone;
    const bool has_value = rule.value != nullptr && !(rule.value_optional && value.empty());
    if (Status applied = apply_option(rule, has_value ? value.c_str() : nullptr, alone); !applied) {
      const Error& error = applied.error();
      complain(at, error.operation == label(rule) ? rule.name + (": " + error.detail)
                                                  : rule.name + (": " + error.message()));
      return;
    }
    section.settings.push_back({&rule, std::move(value), at});
  }

  void read_pools(const MarkedNode& node) {
    parsed_.file.several = true;
    if (node.kind != Kind::kMap || node.keys.empty()) {
      complain(node.at, "pools: names of pools should stand here, each with its own options");
      return;
    }
    if (node.keys.size() > kMostPools) {
      complain(node.at, "pools: there are more than " + std::to_string(kMostPools));
      return;
    }
    for (std::size_t i = 0; i < node.keys.size(); ++i) {
      FileSection pool;
      pool.pool = node.keys[i].text;
      pool.at = node.keys[i].at;
      Options alone;
      if (pool.pool.empty() || pool.pool.front() == '-' ||
          !apply_option(*find_option("command-name"), pool.pool.c_str(), alone)) {
        complain(pool.at, single_quoted(pool.pool) +
                              " can't be the name of a pool (allowed: no "
                              "slashes, no control characters, no - in "
                              "front)");
        continue;
      }
      if (node.items[i].kind == Kind::kMap) {
        read_section(node.items[i], pool, false);
      } else if (node.items[i].kind != Kind::kNull) {
        complain(node.items[i].at, "the options of pool " + single_quoted(pool.pool) +
                                       " should stand here, each as `NAME: VALUE`");
      }
      parsed_.file.pools.push_back(std::move(pool));
    }
  }

  const std::string& path_;
  ParsedConfig parsed_;
};

// A value of an environment file; none: a quote is not closed, or something stands behind it.
std::optional<std::string> unquoted(std::string_view text) {
  if (text.empty() || (text.front() != '"' && text.front() != '\'')) {
    return std::string(text);
  }
  const char quote = text.front();
  std::string value;
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == quote) {
      return i + 1 == text.size() ? std::optional(value) : std::nullopt;
    }
    if (quote == '"' && text[i] == '\\' && i + 1 < text.size()) {
      const char next = text[++i];
      if (next == 'n' || next == 't') {
        value += next == 'n' ? '\n' : '\t';
        continue;
      }
      if (next != '"' && next != '\\' && next != '$') {
        value += '\\';
      }
      value += next;
      continue;
    }
    value += text[i];
  }
  return std::nullopt;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

std::string place(const std::string& path, const wire::Mark& mark) {
  return path + ":" + std::to_string(mark.line) + ":" + std::to_string(mark.column);
}

bool is_for_files(const OptionRule& rule) {
  constexpr auto kNotForFiles = std::to_array<std::string_view>(
      {"help", "config", "pool", "check-config", "print-config", "config-schema", "version"});
  return std::find(kNotForFiles.begin(), kNotForFiles.end(), rule.name) == kNotForFiles.end() &&
         !std::string_view(rule.text).starts_with("[Internal]");
}

ParsedConfig parse_config_file(std::string_view text, const std::string& path) {
  return Parsing(path).run(text);
}

Result<std::vector<std::string>> parse_env_file(std::string_view text, const std::string& path) {
  std::vector<std::string> variables;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') {
      continue;
    }
    if (line.starts_with("export ")) {
      line = trimmed(line.substr(7));
    }
    const std::string where = path + ":" + std::to_string(number) + ":1";
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos || line.find('\0') != std::string_view::npos) {
      return make_error(where, "this line is no NAME=VALUE");
    }
    const std::optional<std::string> value = unquoted(trimmed(line.substr(equals + 1)));
    if (!value) {
      return make_error(where, "a quote is not closed, or something stands behind it");
    }
    std::string variable = std::string(trimmed(line.substr(0, equals))) + "=" + *value;
    Options alone;
    if (Status applied = apply_option(*find_option("env"), variable.c_str(), alone); !applied) {
      return make_error(where, applied.error().detail);
    }
    variables.push_back(std::move(variable));
  }
  return variables;
}

}  // namespace einhorn::master
