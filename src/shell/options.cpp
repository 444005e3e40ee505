#include "shell/options.h"

#include <getopt.h>

#include <cmath>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/numbers.h"
#include "os/c_strings.h"

namespace einhorn::shell {

namespace {

// Values of long options that have no short form.
constexpr int kJson = 256;
constexpr int kTimeout = 257;
constexpr int kVersion = 258;

constexpr option kLongOptions[] = {
    {"command-name", required_argument, nullptr, 'c'},
    {"execute", required_argument, nullptr, 'e'},
    {"help", no_argument, nullptr, 'h'},
    {"json", no_argument, nullptr, kJson},
    {"socket-path", required_argument, nullptr, 'd'},
    {"timeout", required_argument, nullptr, kTimeout},
    {"version", no_argument, nullptr, kVersion},
    {nullptr, 0, nullptr, 0},
};

Result<Duration> parse_timeout(std::string_view text) {
  const double seconds = whole_number<double>(text).value_or(0);
  if (!std::isfinite(seconds) || seconds <= 0) {
    return make_error("--timeout " + std::string(text), "it takes seconds, more than 0");
  }
  return from_seconds(seconds);
}

// What getopt_long stumbled over, by its own account: '?' or ':'.
Error option_error(int outcome, const char* argument) {
  const std::string written = argument == nullptr ? "" : argument;
  if (outcome == ':') {
    return make_error(written, "a value is missing");
  }
  if (!written.starts_with("--")) {
    return make_error(std::string("-") + static_cast<char>(optopt), "unknown option");
  }
  if (optopt != 0) {
    return make_error(written, "this option takes no value");
  }
  const std::string name = written.substr(2, written.find('=') - 2);
  int matches = 0;
  for (const option* entry = kLongOptions; entry->name != nullptr; ++entry) {
    matches += std::strncmp(entry->name, name.c_str(), name.size()) == 0 ? 1 : 0;
  }
  return make_error(written, matches > 1 ? "ambiguous option" : "unknown option");
}

Status apply(ShellOptions& options, int option, const char* value) {
  switch (option) {
    case 'c':
      options.command_name = value;
      break;
    case 'd':
      options.socket_path = value;
      break;
    case 'e':
      options.commands = value;
      break;
    case 'h':
      options.mode = Mode::kUsage;
      break;
    case kVersion:
      options.mode = Mode::kVersion;
      break;
    case kJson:
      options.json = true;
      break;
    default: {
      Result<Duration> timeout = parse_timeout(value);
      if (!timeout) {
        return std::move(timeout).error();
      }
      options.timeout = *timeout;
    }
  }
  return Ok{};
}

// `-c NAME` and the same NAME again as an argument are one name.
void take_names(ShellOptions& options, std::vector<std::string> names) {
  if (!names.empty() && names.front() == "top") {  // a pool of that name: -c top
    names.erase(names.begin());
    options.mode = Mode::kTop;
    if (options.commands || options.json) {
      options.mode = Mode::kUsage;
      options.complaint = "top takes neither -e nor --json";
      return;
    }
  }
  if (options.command_name.has_value() && names != std::vector{*options.command_name}) {
    names.insert(names.begin(), *options.command_name);
  }
  if (names.size() > 1) {
    options.mode = Mode::kUsage;
    options.complaint = "more than one name: \"" + names[0] + "\" and \"" + names[1] +
                        "\" (commands are given with -e)";
  } else if (!names.empty()) {
    options.command_name = std::move(names.front());
  }
}

}  // namespace

Result<ShellOptions> parse_options(const std::vector<std::string>& arguments) {
  // getopt_long reorders the pointers, never the texts.
  std::vector<std::string> texts = {"einhornsh"};
  texts.insert(texts.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers = os::c_strings(texts);
  const int count = static_cast<int>(texts.size());

  ShellOptions options;
  opterr = 0;
  optind = 0;  // start anew, whoever has used it before
  while (true) {
    const int option = ::getopt_long(count, pointers.data(), ":c:d:e:h", kLongOptions, nullptr);
    if (option == -1) {
      break;
    }
    if (option == '?' || option == ':') {
      return option_error(option, pointers[static_cast<std::size_t>(optind - 1)]);
    }
    if (Status status = apply(options, option, optarg); !status) {
      return std::move(status).error();
    }
    if (options.mode != Mode::kRun) {
      return options;
    }
  }
  std::vector<std::string> names;
  for (int index = optind; index < count; ++index) {
    names.emplace_back(pointers[static_cast<std::size_t>(index)]);
  }
  take_names(options, std::move(names));
  return options;
}

std::string usage_text() {
  return "Usage: einhornsh [options] [cmd_name]\n"
         "       einhornsh [options] top [cmd_name]\n"
         "\n"
         "The shell of an Einhorn master. Name the master as it was started: by its cmd_name, or "
         "by\n"
         "the path of its command socket. Commands come from -e, from a pipe, one a line, or are\n"
         "typed at the prompt. `top` shows the workers, live.\n"
         "\n"
         "    -c, --command-name CMD_NAME      Connect to the master with this cmd_name\n"
         "    -d, --socket-path PATH           Connect to the command socket at PATH\n"
         "    -e, --execute CMD_LINE_SEQ       Run these commands (\"a; b\") and exit\n"
         "        --json                       Print every reply as one line of JSON\n"
         "        --timeout SECONDS            Give up when a command takes longer (default: "
         "never)\n"
         "    -h, --help                       Display this message\n"
         "        --version                    Print the version\n"
         "\n"
         "Exit status: 0 every command succeeded; 1 one failed, or the master was not reached or "
         "was\n"
         "lost; 2 an upgrade could not be started; 130 it goes on, left by Ctrl-C.\n";
}

}  // namespace einhorn::shell
