#include "agent/options.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "agent/control.h"
#include "base/numbers.h"
#include "client/socket_paths.h"

namespace einhorn::agent {
namespace {

Error wrong(std::string_view option, const std::string& given, const std::string& allowed) {
  return make_error(std::string(option) + " " + given, allowed);
}

std::optional<double> as_number(std::string_view text) {
  const auto number = whole_number<double>(text);
  return number && std::isfinite(*number) ? number : std::nullopt;
}

// "50%" or "50"
Status take_percent(std::uint32_t& into, std::string_view option, const std::string& value) {
  std::string_view digits = value;
  if (digits.ends_with('%')) {
    digits.remove_suffix(1);
  }
  const std::optional<double> number = as_number(digits);
  if (!number || *number < 0 || *number > 100 || *number != std::floor(*number)) {
    return wrong(option, value, "it must be a percentage, 0% to 100%");
  }
  into = static_cast<std::uint32_t>(*number);
  return Ok{};
}

// "500M", "2G", bytes.
Status take_bytes(std::uint64_t& into, std::string_view option, const std::string& value) {
  std::string_view digits = value;
  double factor = 1;
  constexpr std::string_view kUnits = "KMGT";
  if (!digits.empty()) {
    const std::size_t unit = kUnits.find(digits.back());
    if (unit != std::string_view::npos) {
      factor = static_cast<double>(std::uint64_t{1} << (10U * (unit + 1)));
      digits.remove_suffix(1);
    }
  }
  const std::optional<double> number = as_number(digits);
  if (!number || *number * factor < 1 << 20U || *number * factor > 1e18) {
    return wrong(option, value, "it must be a size of at least 1M: 500M, 2G");
  }
  into = static_cast<std::uint64_t>(*number * factor);
  return Ok{};
}

Status take_duration(Duration& into, std::string_view option, const std::string& value,
                     Duration least, Duration most, const std::string& allowed) {
  const Result<Duration> duration = parse_duration(value);
  if (!duration || *duration < least || *duration > most) {
    return wrong(option, value, allowed);
  }
  into = *duration;
  return Ok{};
}

struct Row {
  char letter;  // 0: none
  std::string_view name;
  std::string_view value;  // "" none
  std::string_view help;   // lines, separated by \n
  Status (*take)(AgentOptions&, const std::string& value);
};

constexpr Duration kDay = std::chrono::hours{24};

const std::vector<Row>& table() {
  static const std::vector<Row> kTable = {
      {0, "--all", "", "Every master in the directory for temporary files",
       [](AgentOptions& options, const std::string&) -> Status {
         options.wanted.directories.emplace_back("");
         return Ok{};
       }},
      {0, "--directory", "DIR", "Every master in DIR; may be said more than once",
       [](AgentOptions& options, const std::string& value) -> Status {
         options.wanted.directories.push_back(value);
         return Ok{};
       }},
      {'d', "--socket-path", "PATH", "The master with this command socket; more than once",
       [](AgentOptions& options, const std::string& value) -> Status {
         options.wanted.paths.push_back(value);
         return Ok{};
       }},
      {0, "--listen", "ADDR",
       "Where to listen for HTTP (default: 127.0.0.1:9100):\nHOST:PORT, [IPV6]:PORT or unix:PATH",
       [](AgentOptions& options, const std::string& value) -> Status {
         options.listen = value;
         options.listen_given = true;
         return Ok{};
       }},
      {0, "--host", "NAME",
       "A name under which the page is asked for, besides addresses\nand localhost",
       [](AgentOptions& options, const std::string& value) -> Status {
         options.hosts.push_back(value);
         return Ok{};
       }},
      {0, "--sample", "SECONDS", "Between samples of memory, CPU and queues (default: 5; 0: none)",
       [](AgentOptions& options, const std::string& value) -> Status {
         const std::optional<double> seconds = as_number(value);
         if (!seconds || (*seconds != 0 && *seconds < 0.1) || *seconds > 3600) {
           return wrong("--sample", value, "it must be 0 or from 0.1 to 3600 seconds");
         }
         options.sample_interval = from_seconds(*seconds);
         return Ok{};
       }},
      {0, "--allow-control", "",
       "Buttons that upgrade, roll back, scale and stop; needs\n--token-file",
       [](AgentOptions& options, const std::string&) -> Status {
         options.allow_control = true;
         return Ok{};
       }},
      {0, "--token-file", "FILE",
       "The token that such requests must have; only its owner\nmay read it",
       [](AgentOptions& options, const std::string& value) -> Status {
         options.token_file = value;
         return Ok{};
       }},
      {0, "--healthy-min", "PERCENT",
       "/healthcheck says 200 if so many workers are ready (default: 50%)",
       [](AgentOptions& options, const std::string& value) {
         return take_percent(options.health.least_percent, "--healthy-min", value);
       }},
      {0, "--agent-check", "ADDR[,POOL]", "Answers HAProxy's agent-check there: up N%, drain, down",
       [](AgentOptions& options, const std::string& value) -> Status {
         const std::size_t comma = std::min(value.find(','), value.size());
         options.agent_check = value.substr(0, comma);
         options.agent_check_pool = value.substr(std::min(comma + 1, value.size()));
         return Ok{};
       }},
      {0, "--drain", "SECONDS", "After TERM: say so long that we drain, then leave (default: 0)",
       [](AgentOptions& options, const std::string& value) {
         return take_duration(options.drain, "--drain", value, Duration{0}, kDay,
                              "it must be from 0 seconds to a day");
       }},
      {0, "--statsd", "ADDR", "Sends StatsD metrics to HOST:PORT or unix:PATH",
       [](AgentOptions& options, const std::string& value) -> Status {
         options.statsd.address = value;
         return Ok{};
       }},
      {0, "--statsd-prefix", "TEXT", "In front of every name (default: einhorn)",
       [](AgentOptions& options, const std::string& value) -> Status {
         if (value.empty() || value.find_first_of(":|@#,\n ") != std::string::npos) {
           return wrong("--statsd-prefix", value, "it must be a name without : | @ # , or spaces");
         }
         options.statsd.prefix = value;
         return Ok{};
       }},
      {0, "--statsd-interval", "SECONDS", "Between gauges (default: 10)",
       [](AgentOptions& options, const std::string& value) {
         return take_duration(options.statsd.interval, "--statsd-interval", value,
                              std::chrono::milliseconds{100}, kDay,
                              "it must be from 0.1 seconds to a day");
       }},
      {0, "--dogstatsd", "", "With tags, as DogStatsD and Veneur understand them",
       [](AgentOptions& options, const std::string&) -> Status {
         options.statsd.dog = true;
         return Ok{};
       }},
      {0, "--statsd-tag", "NAME:VALUE", "A tag on every metric; more than once; needs --dogstatsd",
       [](AgentOptions& options, const std::string& value) -> Status {
         if (value.empty() || value.find_first_of("|,#\n") != std::string::npos) {
           return wrong("--statsd-tag", value, "it must be NAME:VALUE, without | , or #");
         }
         options.statsd.tags.push_back(value);
         return Ok{};
       }},
      {0, "--history", "WHERE",
       "Keeps events and samples in this SQLite file, or in PostgreSQL:\n"
       "postgresql://USER@HOST/DATABASE",
       [](AgentOptions& options, const std::string& value) -> Status {
         if (value.empty()) {
           return wrong("--history", value, "it must be a file or postgresql://...");
         }
         options.history = value;
         return Ok{};
       }},
      {0, "--history-age", "TIME", "What is older goes: 30d (default), 12h",
       [](AgentOptions& options, const std::string& value) {
         return take_duration(options.keep_age, "--history-age", value, std::chrono::minutes{1},
                              kDay * 3660, "it must be from 1m to ten years: 12h, 30d");
       }},
      {0, "--history-size", "BYTES", "The oldest goes when the file is larger: 1G (default), 500M",
       [](AgentOptions& options, const std::string& value) {
         return take_bytes(options.keep_bytes, "--history-size", value);
       }},
      {'h', "--help", "", "This text",
       [](AgentOptions& options, const std::string&) -> Status {
         options.mode = Mode::kUsage;
         return Ok{};
       }},
      {0, "--version", "", "The version",
       [](AgentOptions& options, const std::string&) -> Status {
         options.mode = Mode::kVersion;
         return Ok{};
       }},
  };
  return kTable;
}

const Row* find(std::string_view name) {
  for (const Row& row : table()) {
    const bool short_form = name.size() == 2 && row.letter != 0 && name[1] == row.letter;
    if (short_form || row.name == name) {
      return &row;
    }
  }
  return nullptr;
}

Status check(const AgentOptions& options) {
  if (options.allow_control && options.token_file.empty()) {
    return make_error("--allow-control",
                      "it needs --token-file FILE: whoever has the token in it may control");
  }
  if (!options.allow_control && !options.token_file.empty()) {
    return make_error("--token-file", "it is for --allow-control, which was not said");
  }
  if (!options.statsd.dog && !options.statsd.tags.empty()) {
    return make_error("--statsd-tag", "plain StatsD has no tags; say --dogstatsd as well");
  }
  if (options.statsd.address.empty() && options.statsd.dog) {
    return make_error("--dogstatsd", "it is for --statsd ADDR, which was not said");
  }
  return Ok{};
}

// A name as `einhornsh -c` has it, or a path.
Status take_name(AgentOptions& options, const std::string& name,
                 const os::EnvironmentLookup& environment) {
  if (name.find('/') != std::string::npos) {
    options.wanted.paths.push_back(name);
    return Ok{};
  }
  Result<std::string> path = client::default_socket_path(name, environment);
  if (!path) {
    return path.error();
  }
  options.wanted.paths.push_back(*path);
  return Ok{};
}

Status find_directories(AgentOptions& options, const os::EnvironmentLookup& environment) {
  for (std::string& directory : options.wanted.directories) {
    if (directory.empty()) {
      Result<std::string> found = os::temporary_directory(environment);
      if (!found) {
        return found.error();
      }
      directory = *found;
    }
  }
  if (options.wanted.paths.empty() && options.wanted.directories.empty()) {
    Result<std::string> path = client::default_socket_path(std::nullopt, environment);
    if (!path) {
      return path.error();
    }
    options.wanted.paths.push_back(*path);
  }
  return Ok{};
}

}  // namespace

Result<Duration> parse_duration(const std::string& text) {
  std::string_view digits = text;
  double factor = 1;
  constexpr std::array<std::pair<char, double>, 4> kUnits = {
      {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}}};
  for (const auto& [letter, seconds] : kUnits) {
    if (digits.size() > 1 && digits.back() == letter) {
      factor = seconds;
      digits.remove_suffix(1);
      break;
    }
  }
  const std::optional<double> number = as_number(digits);
  if (!number || *number < 0) {
    return make_error(text, "it must be a time: 90, 30s, 5m, 12h, 7d");
  }
  return from_seconds(*number * factor);
}

Result<AgentOptions> parse_options(const std::vector<std::string>& arguments,
                                   const os::EnvironmentLookup& environment) {
  AgentOptions options;
  bool only_names = false;
  for (std::size_t at = 0; at < arguments.size(); ++at) {
    const std::string& word = arguments[at];
    if (!only_names && word == "--") {
      only_names = true;
      continue;
    }
    if (only_names || !word.starts_with('-') || word == "-") {
      if (options.mode == Mode::kSql || options.mode == Mode::kHistory) {
        options.words.push_back(word);
      } else if (word == "sql" || word == "history") {
        options.mode = word == "sql" ? Mode::kSql : Mode::kHistory;
      } else if (Status taken = take_name(options, word, environment); !taken) {
        return taken.error();
      }
      continue;
    }
    if (options.mode == Mode::kHistory && (word == "--since" || word == "--limit")) {
      options.words.push_back(word);
      continue;
    }
    if (word == "--companion" && at + 1 < arguments.size()) {  // of einhorn --agent, not for people
      const std::optional<double> line = as_number(arguments[++at]);
      options.companion = line && *line > 2 && *line < 1e6 ? static_cast<int>(*line) : -1;
      continue;
    }
    const std::size_t equals = std::min(word.find('='), word.size());
    const std::string name = word.substr(0, equals);
    const Row* row = find(name);
    if (row == nullptr) {
      return make_error(name, "unknown option; einhorn-agent --help lists them");
    }
    std::string value;
    if (row->value.empty()) {
      if (equals < word.size()) {
        return make_error(name, "this option takes no value");
      }
    } else if (equals < word.size()) {
      value = word.substr(equals + 1);
    } else if (at + 1 < arguments.size()) {
      value = arguments[++at];
    } else {
      return make_error(name, "a value is missing: " + std::string(row->value));
    }
    if (Status taken = row->take(options, value); !taken) {
      return taken.error();
    }
    if (options.mode == Mode::kUsage || options.mode == Mode::kVersion) {
      return options;
    }
  }
  if (Status checked = check(options); !checked) {
    return checked.error();
  }
  if (Status found = find_directories(options, environment); !found) {
    return found.error();
  }
  return options;
}

std::string history_note(const std::string& socket_path) { return socket_path + ".history"; }

Result<std::string> find_history(const AgentOptions& options,
                                 const os::EnvironmentLookup& environment) {
  if (!options.history.empty()) {
    return options.history;
  }
  if (const char* where = environment("EINHORN_HISTORY"); where != nullptr && *where != '\0') {
    return std::string(where);
  }
  std::vector<std::string> notes;
  for (const std::string& path : options.wanted.paths) {
    Result<std::string> where = read_own_line(history_note(path));
    if (where) {
      return where;
    }
    notes.push_back(history_note(path));
  }
  return make_error("history",
                    "say which: --history FILE or EINHORN_HISTORY; no running agent has "
                    "said where it keeps one" +
                        (notes.empty() ? "" : " (" + notes[0] + ")"));
}

std::string usage_text() {
  std::string text =
      "Usage: einhorn-agent [options] [NAME|PATH ...]\n"
      "       einhorn-agent [--history WHERE] sql 'SELECT ...'\n"
      "       einhorn-agent [--history WHERE] history upgrades|crashes|events [--since TIME]\n"
      "                     [--limit N] [NAME]\n"
      "\n"
      "Shows running Einhorn masters: a page, metrics, health, history. A master is named as it "
      "was\n"
      "started (-c NAME), or by its command socket; without a name it is einhorn.sock.\n"
      "\n";
  constexpr std::size_t kColumn = 36;
  for (const Row& row : table()) {
    std::string line = row.letter != 0 ? "    -" + std::string(1, row.letter) + ", " : "        ";
    line += row.name;
    if (!row.value.empty()) {
      line += " " + std::string(row.value);
    }
    std::string_view help = row.help;
    while (!help.empty()) {
      const std::size_t end = std::min(help.find('\n'), help.size());
      line.resize(std::max(line.size() + 1, kColumn), ' ');
      text += line + std::string(help.substr(0, end)) + "\n";
      line.clear();
      help.remove_prefix(std::min(end + 1, help.size()));
    }
  }
  return text + "\nIt needs no rights but those to the command socket, and no pool needs it.\n";
}

}  // namespace einhorn::agent
