#include "master/option_table.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/limits.h"
#include "master/shell_words.h"
#include "os/intercept.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

// --- values -------------------------------------------------------------------------------------

constexpr double kMostSeconds = 1e9;
constexpr std::uint32_t kMostCount = 1'000'000;

Error wrong(const std::string& value, const std::string& why) {
  return make_error("", wire::text::ruby_quoted(value) + ' ' + why);
}

// The whole of the text as a number in one plain form; none if it is not.
template <typename Number, typename... Form>
std::optional<Number> read_number(std::string_view text, Form... form) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, number, form...);
  if (code != std::errc() || stop != end) {
    return std::nullopt;
  }
  return number;
}

bool is_whole_number(std::string_view text) {
  if (text.starts_with('-')) {
    text.remove_prefix(1);
  }
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

Result<std::int64_t> parse_integer(const std::string& value, std::int64_t least,
                                   std::int64_t most) {
  const std::string allowed =
      "(allowed: " + std::to_string(least) + " to " + std::to_string(most) + ")";
  if (!is_whole_number(value)) {
    return wrong(value, "is not a whole number " + allowed);
  }
  const std::optional<std::int64_t> number = read_number<std::int64_t>(value);
  if (!number || *number < least || *number > most) {
    return wrong(value, "is out of range " + allowed);
  }
  return *number;
}

enum class Zero { kAllowed, kRefused };

Result<Duration> parse_seconds(const std::string& value, Zero zero) {
  const std::string allowed = std::string("(allowed: ") +
                              (zero == Zero::kAllowed ? "0" : "more than 0") +
                              " to 1000000000 seconds)";
  const std::optional<double> seconds = read_number<double>(value);
  if (!seconds || !std::isfinite(*seconds)) {
    return wrong(value, "is not a number " + allowed);
  }
  // Less than a nanosecond is nothing.
  const Duration duration = from_seconds(*seconds + 0.5e-9);
  const bool too_small =
      std::signbit(*seconds) || (zero == Zero::kRefused && duration == Duration::zero());
  if (too_small || *seconds > kMostSeconds) {
    return wrong(value, "is out of range " + allowed);
  }
  return duration;
}

// Gives the value to `member`, or passes the error on.
template <typename T, typename Member>
Status assign(Result<T> value, Member& member) {
  if (!value) {
    return std::move(value).error();
  }
  member = static_cast<Member>(*value);
  return Ok{};
}

template <typename T, typename Member>
Status assign(Result<T> value, std::optional<Member>& member) {
  if (!value) {
    return std::move(value).error();
  }
  member = static_cast<Member>(*value);
  return Ok{};
}

// --- options with rules of their own ------------------------------------------------------------

Status apply_bind(Options& options, const std::string& value) {
  if (options.binds.size() >= limits::kMaxListeners) {
    return make_error("", "more than " + std::to_string(limits::kMaxListeners) + " addresses");
  }
  Result<os::BindSpec> spec = os::parse_bind_spec(value);
  if (!spec) {
    return std::move(spec).error();
  }
  options.binds.push_back(std::move(*spec));
  return Ok{};
}

// The name becomes a part of file names.
Status apply_command_name(Options& options, const std::string& value) {
  const auto is_bad = [](unsigned char c) { return c == '/' || c < 0x20 || c == 0x7f; };
  if (std::any_of(value.begin(), value.end(), is_bad)) {
    return wrong(value,
                 "can't be part of a file name (allowed: no slashes and no control characters)");
  }
  options.settings.name = value;
  return Ok{};
}

Status apply_ack_mode(Options& options, const std::string& value) {
  options.ack_mode_given = true;
  if (value == "listen") {
    options.config.ack_mode = pool::AckMode::kListen;
    return Ok{};
  }
  if (value == "manual") {
    options.config.ack_mode = pool::AckMode::kManual;
    return Ok{};
  }
  if (value == "notify") {
    options.config.ack_mode = pool::AckMode::kNotify;
    return Ok{};
  }
  Result<Duration> delay = parse_seconds(value, Zero::kAllowed);
  if (!delay) {
    return wrong(value, "is no way to ACK (allowed: 0 or more seconds, manual, notify, listen)");
  }
  options.config.ack_mode = pool::AckMode::kTimer;
  options.config.ack_delay = *delay;
  return Ok{};
}

Status apply_intercept(Options& options, const std::string& value) {
  using Intercept = Options::Intercept;
  if (value.empty() || value == "auto") {
    options.intercept = Intercept::kAuto;
  } else if (value == "seccomp") {
    options.intercept = Intercept::kSeccomp;
  } else {
    if (Result<os::InterceptRule> rule = os::parse_intercept_rule(value); !rule) {
      return rule.error();
    }
    options.settings.intercept_rules.push_back(value);
    if (options.intercept == Intercept::kOff) {
      options.intercept = Intercept::kAuto;
    }
  }
  return Ok{};
}

Status apply_intercept_all(Options& options, const std::string&) {
  options.settings.intercept_all = true;
  if (options.intercept == Options::Intercept::kOff) {
    options.intercept = Options::Intercept::kAuto;
  }
  return Ok{};
}

Status apply_intercept_fd(Options& options, const std::string& value) {
  Status status =
      assign(parse_integer(value, 0, std::numeric_limits<std::int32_t>::max()), options.state_fd);
  if (status) {
    options.mode = Options::Mode::kWatch;
  }
  return status;
}

Status apply_preload(Options&, const std::string&) {
  return make_error("", "preloading is not available yet; start the program without it");
}

Status apply_signal_timeout(Options& options, const std::string& value) {
  Result<Duration> timeout = parse_seconds(value, Zero::kRefused);
  if (!timeout || *timeout < std::chrono::seconds{1}) {
    return wrong(value, "is not a number of seconds from 1 on");
  }
  options.config.signal_timeout = *timeout;
  return Ok{};
}

Status apply_max_unacked(Options& options, const std::string& value) {
  Status status = assign(parse_integer(value, 1, limits::kMaxWorkers), options.config.max_unacked);
  if (status) {
    options.settings.max_unacked_given = options.config.max_unacked;
  }
  return status;
}

Status apply_stop_signal(Options& options, const std::string& value) {
  const std::optional<int> signal = parse_signal(value);
  if (!signal) {
    return wrong(value, "is no signal (allowed: a name such as USR2, TERM, QUIT or INT)");
  }
  if (*signal == SIGSTOP || *signal == SIGCONT) {
    return wrong(value, "does not end a process (allowed: a name such as USR2, TERM, QUIT or INT)");
  }
  options.config.stop_signal = *signal;
  options.stop_signal_given = true;
  return Ok{};
}

Status apply_reexec_as(Options& options, const std::string& value) {
  Result<std::vector<std::string>> words = split_shell_words(value);
  if (!words) {
    return wrong(value, words.error().message());
  }
  if (words->empty() || words->front().empty()) {
    return wrong(value, "names no program");
  }
  options.settings.reexec_commandline = std::move(*words);
  return Ok{};
}

Status apply_drop_env_var(Options& options, const std::string& value) {
  if (value.find('=') != std::string::npos) {
    return wrong(value, "is no name of a variable (allowed: a name without \"=\")");
  }
  options.settings.drop_environment.push_back(value);
  return Ok{};
}

constexpr int kMostNice = 19;
constexpr int kLeastNice = -20;

// MASTER[:WORKER[:RENICE_CMD]]
Status apply_nice(Options& options, const std::string& value) {
  const std::size_t first = value.find(':');
  const std::size_t second = first == std::string::npos ? first : value.find(':', first + 1);
  Result<std::int64_t> master = parse_integer(value.substr(0, first), kLeastNice, kMostNice);
  if (Status status = assign(std::move(master), options.settings.nice_master); !status) {
    return status;
  }
  if (first == std::string::npos) {
    return Ok{};
  }
  Result<std::int64_t> worker =
      parse_integer(value.substr(first + 1, second - first - 1), kLeastNice, kMostNice);
  if (Status status = assign(std::move(worker), options.settings.nice_worker); !status) {
    return status;
  }
  if (second == std::string::npos) {
    return Ok{};
  }
  std::string command = value.substr(second + 1);
  if (command.empty()) {
    return wrong(value, "ends where RENICE_CMD should be");
  }
  options.settings.renice_command = std::move(command);
  return Ok{};
}

Status apply_socket_mode(Options& options, const std::string& value) {
  constexpr std::uint32_t kMostMode = 0777;
  const std::optional<std::uint32_t> mode = read_number<std::uint32_t>(value, 8);
  if (!mode || *mode > kMostMode) {
    return wrong(value, "is no file mode (allowed: octal, 0 to 0777)");
  }
  options.settings.socket_mode = *mode;
  return Ok{};
}

Status apply_log_format(Options& options, const std::string& value) {
  if (value != "text" && value != "json") {
    return wrong(value, "is no format of the log (allowed: text, json)");
  }
  options.settings.log_json = value == "json";
  return Ok{};
}

Status apply_state_fd(Options& options, const std::string& value) {
  Status status =
      assign(parse_integer(value, 0, std::numeric_limits<std::int32_t>::max()), options.state_fd);
  if (status) {
    options.mode = Options::Mode::kMaster;
  }
  return status;
}

// Paths are kept as given; boot looks for the defaults where nothing was given.
Status apply_path(std::string& path, std::string& given, const std::string& value) {
  path = value;
  given = value;
  return Ok{};
}

Status set(bool& flag) {
  flag = true;
  return Ok{};
}

Status set_mode(Options& options, Options::Mode mode) {
  options.mode = mode;
  return Ok{};
}

// --- the table ----------------------------------------------------------------------------------

using Mode = Options::Mode;
using Text = const std::string&;

constexpr std::array<OptionRule, kOptionCount> kTable = {{
    {'b', "bind", "ADDR",
     "Open a server socket and hand its descriptor to every worker; may be given more than once. "
     "ADDR is HOST:PORT, unix:PATH, udp:HOST:PORT or fd:NAME, followed by ,OPT as often as needed",
     apply_bind},
    {'c', "command-name", "CMD_NAME", "The name of this pool: in ps, in the names of its files",
     apply_command_name},
    {'d', "socket-path", "PATH", "Where to open the command socket",
     [](Options& o, Text v) {
       return apply_path(o.settings.socket_path, o.settings.socket_path_given, v);
     }},
    {'e', "pidfile", "PIDFILE", "Where to write the pid",
     [](Options& o, Text v) {
       return apply_path(o.settings.pidfile, o.settings.pidfile_given, v);
     }},
    {'f', "lockfile", "LOCKFILE", "Where to keep the lock file",
     [](Options& o, Text v) {
       return apply_path(o.settings.lockfile, o.settings.lockfile_given, v);
     }},
    {'g', "command-socket-as-fd", nullptr,
     "Give every worker a connection to the command socket as a descriptor, named by "
     "EINHORN_SOCK_FD, so that it can ACK without knowing any path",
     [](Options& o, Text) { return set(o.settings.command_socket_as_fd); }},
    {'h', "help", nullptr, "Show this text",
     [](Options& o, Text) { return set_mode(o, Mode::kHelp); }},
    {'k', "kill-children-on-exit", nullptr,
     "When Einhorn dies unexpectedly, stop its workers gracefully",
     [](Options& o, Text) { return set(o.settings.kill_children_on_exit); }},
    {'l', "backlog", "N",
     "How many connections may wait to be accepted, per socket; 100 by default",
     [](Options& o, Text v) { return assign(parse_integer(v, 1, 65535), o.settings.backlog); }},
    {'m', "ack-mode", "MODE",
     "What makes a worker count as up. FLOAT: it has lived for that many seconds; manual: it says "
     "so "
     "on the command socket; notify: it sends READY=1 to NOTIFY_SOCKET; listen: it has called "
     "listen, "
     "the default with --intercept, and possible only then. 1 by default otherwise",
     apply_ack_mode},
    {'n', "number", "N", "How many workers to run; 1 by default",
     [](Options& o, Text v) {
       return assign(parse_integer(v, 1, limits::kMaxWorkers), o.config.number);
     }},
    {'p', "preload", "PATH", "Load this code once and fork the workers from it (not available yet)",
     apply_preload},
    {'q', "quiet", nullptr, "Log less; may be repeated, and changed while running",
     [](Options& o, Text) -> Status {
       o.settings.verbosity = std::min(o.settings.verbosity + 1, 2);
       return Ok{};
     }},
    {'s', "seconds", "N",
     "Leave at least N seconds between two starts of workers; without it workers start as fast as "
     "--max-unacked lets them",
     [](Options& o, Text v) { return assign(parse_seconds(v, Zero::kRefused), o.config.seconds); }},
    {'t', "signal-timeout", "T",
     "Kill a worker, and its whole process group, that is still there T seconds after it was told "
     "to "
     "stop",
     apply_signal_timeout},
    {'v', "verbose", nullptr, "Log more; may be repeated, and changed while running",
     [](Options& o, Text) -> Status {
       o.settings.verbosity = std::max(o.settings.verbosity - 1, 0);
       return Ok{};
     }},
    {0, "ack-timeout", "SECONDS",
     "Stop a worker that has not ACKed after so long (not with a FLOAT); 300 by default, 0 "
     "waits for ever",
     [](Options& o, Text v) {
       return assign(parse_seconds(v, Zero::kAllowed), o.config.ack_timeout);
     }},
    {0, "give-up", "N",
     "Fail after N deaths before ACK in a row, and end if nothing serves; 0, the default: never",
     [](Options& o, Text v) { return assign(parse_integer(v, 0, kMostCount), o.config.give_up); }},
    {0, "stop-signal", "SIG",
     "The signal that makes a worker stop gracefully; USR2 by default, with --intercept TERM",
     apply_stop_signal},
    {0, "max-unacked", "N",
     "How many workers may be starting at a time; the number of CPUs by default",
     apply_max_unacked},
    {0, "max-upgrade-additional", "N",
     "How many workers more than the number may run during a smooth upgrade; any by default",
     [](Options& o, Text v) {
       return assign(parse_integer(v, 1, limits::kMaxWorkers), o.config.max_upgrade_additional);
     }},
    {0, "drain-timeout", "SECONDS",
     "As --signal-timeout, for workers of old versions; -t by default",
     [](Options& o, Text v) {
       return assign(parse_seconds(v, Zero::kRefused), o.config.drain_timeout);
     }},
    {0, "canary", "N",
     "How many new workers must be up before an upgrade goes on; 1 by default, 0: none",
     [](Options& o, Text v) {
       return assign(parse_integer(v, 0, limits::kMaxWorkers), o.config.canary);
     }},
    {0, "canary-seconds", "S", "How long these must stay up; 0 by default",
     [](Options& o, Text v) {
       return assign(parse_seconds(v, Zero::kAllowed), o.config.canary_seconds);
     }},
    {0, "upgrade-failures", "K",
     "Go back to the old version when K new workers have failed; 3 by default, 0: never",
     [](Options& o, Text v) {
       return assign(parse_integer(v, 0, kMostCount), o.config.upgrade_failures);
     }},
    {0, "upgrade-timeout", "SECONDS",
     "Go back to the old version when an upgrade takes longer; never by default",
     [](Options& o, Text v) {
       return assign(parse_seconds(v, Zero::kRefused), o.config.upgrade_timeout);
     }},
    {0, "chdir", "DIR", "Start workers in DIR; looked up again at every upgrade",
     [](Options& o, Text v) -> Status {
       o.settings.directory = v;
       return Ok{};
     }},
    {0, "socket-mode", "OCTAL", "The file mode of the command socket; 0600 by default",
     apply_socket_mode},
    {0, "socket-group", "GROUP", "The group of the command socket, by name or number",
     [](Options& o, Text v) -> Status {
       o.settings.socket_group = v;
       return Ok{};
     }},
    {0, "log-format", "FORMAT", "text, the default, or json: one object a line", apply_log_format},
    {0, "log-file", "PATH",
     "Append the log to this file, reopened on SIGUSR1; standard error by default",
     [](Options& o, Text v) -> Status {
       o.settings.log_file = v;
       return Ok{};
     }},
    {0, "drop-env-var", "VAR_NAME",
     "Leave this variable out of the environment that is restored at an upgrade; may be repeated",
     apply_drop_env_var},
    {0, "reexec-as", "CMDLINE", "What to run in place of einhorn itself when upgrading",
     apply_reexec_as},
    {0, "nice", "MASTER[:WORKER[:RENICE_CMD]]",
     "Nice levels of the master and of workers, -20 to 19, and a command that sets them where "
     "Einhorn lacks the right to, such as `sudo renice`",
     apply_nice},
    {0, "gc-before-fork", nullptr,
     "Collect garbage before forking; of a meaning for --preload only",
     [](Options& o, Text) { return set(o.settings.gc_before_fork); }},
    {0, "intercept", "[MODE|FROM=TO]",
     "For programs that know nothing of Einhorn: a worker that binds the address of a -b itself "
     "gets "
     "the shared socket. MODE is auto, the default, or seccomp; FROM=TO (3000=8080): what it "
     "binds as FROM is the -b with the port, or the name, TO; may be repeated",
     apply_intercept, true},
    {0, "intercept-all", nullptr, "Log every address that a worker binds, also those of no -b",
     apply_intercept_all},
    {0, "intercept-io-uring", nullptr,
     "Leave io_uring to intercepted programs; what they bind through it is not seen",
     [](Options& o, Text) { return set(o.settings.intercept_io_uring); }},
    {0, "intercept-fd", "FD", "[Internal] Watch over intercepted programs, on behalf of a master",
     apply_intercept_fd},
    {0, "with-state-fd", "FD", "[Internal] Take over from another master, whose state is on FD",
     apply_state_fd},
    {0, "upgrade-check", nullptr,
     "[Internal] End with status 0 if this command line could be taken over",
     [](Options& o, Text) { return set_mode(o, Mode::kUpgradeCheck); }},
    {0, "version", nullptr, "Show the version",
     [](Options& o, Text) { return set_mode(o, Mode::kVersion); }},
}};

}  // namespace

const std::array<OptionRule, kOptionCount>& option_table() { return kTable; }

std::string label(const OptionRule& rule) {
  const std::string letter = rule.letter != 0 ? std::string{'-', rule.letter, '/'} : "";
  return letter + "--" + rule.name;
}

}  // namespace einhorn::master
