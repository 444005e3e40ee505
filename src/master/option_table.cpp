#include "master/option_table.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/limits.h"
#include "base/numbers.h"
#include "master/option_beside.h"
#include "master/option_health.h"
#include "master/option_hooks.h"
#include "master/option_identity.h"
#include "master/option_values.h"
#include "master/preload.h"
#include "master/shell_words.h"
#include "os/identity.h"
#include "os/intercept.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

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

Status apply_preload_command(Options& options, const std::string& value) {
  Result<std::vector<std::string>> words = split_shell_words(value);
  if (!words) {
    return wrong(value, words.error().message());
  }
  if (words->empty() || words->front().empty()) {
    return wrong(value, "names no program");
  }
  options.settings.preload_command = std::move(*words);
  return Ok{};
}

Status apply_preload_language(Options& options, const std::string& value) {
  options.settings.preload_language = value;
  return check_language(value);
}

Status apply_signal_timeout(Options& options, const std::string& value) {
  Result<Duration> timeout = parse_seconds(value, Zero::kRefused);
  if (!timeout || *timeout < std::chrono::seconds{1}) {
    return wrong(value, "is not a number of seconds from 1 on");
  }
  options.config.signal_timeout = *timeout;
  return Ok{};
}

Status apply_number(Options& options, const std::string& value) {
  options.number_given = true;
  return assign(parse_count(value), options.config.number);
}

// N or MIN:MAX
Status apply_workers(Options& options, const std::string& value) {
  const std::size_t colon = value.find(':');
  if (colon == std::string::npos) {
    return apply_number(options, value);
  }
  pool::Config& config = options.config;
  if (Status least = assign(parse_count(value.substr(0, colon)), config.workers_min); !least) {
    return least;
  }
  if (Status most = assign(parse_count(value.substr(colon + 1)), config.workers_max); !most) {
    return most;
  }
  if (config.workers_min > config.workers_max) {
    return wrong(value, "ends below its beginning (allowed: MIN:MAX, such as 2:16)");
  }
  return Ok{};
}

Status apply_max_unacked(Options& options, const std::string& value) {
  Status status = assign(parse_count(value), options.config.max_unacked);
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
  const std::optional<std::uint32_t> mode = whole_number<std::uint32_t>(value, 8);
  if (!mode || *mode > kMostMode) {
    return wrong(value, "is no file mode (allowed: octal, 0 to 0777)");
  }
  options.settings.socket_mode = *mode;
  options.socket_mode_given = true;
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

constexpr auto kTable = std::to_array<OptionRule>({
    {'b', "bind", "ADDR",
     "Open a server socket and hand its descriptor to every worker; may be given more than once. "
     "ADDR is HOST:PORT, unix:PATH, udp:HOST:PORT or fd:NAME, followed by ,OPT as often as needed",
     apply_bind, false, Form::kRepeat},
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
    {'n', "number", "N",
     "How many workers to run; 1 by default. Also auto, the number of CPUs, and expressions such "
     "as 2*cpus+1",
     apply_number},
    {0, "workers", "N|MIN:MAX",
     "As --number; or, with a range, as many as the sockets' queues ask for within it, beginning "
     "with "
     "--number or MIN",
     apply_workers},
    {'p', "preload", "PATH",
     "Load this code once per version and fork the workers from it, which then run its "
     "einhorn_main. The language is told from the ending: .py or module:function, .rb, .pl, .php, "
     ".so, or, where there is none, from the first line (#!)",
     [](Options& o, Text v) -> Status {
       o.settings.preload = v;
       return Ok{};
     }},
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
    {0, "scale-up-after", "SECONDS",
     "With --workers: add workers when connections have had to wait for so long; 1 by default",
     [](Options& o, Text v) {
       return assign(parse_seconds(v, Zero::kAllowed), o.config.scale_up_after);
     }},
    {0, "scale-down-after", "SECONDS",
     "With --workers: remove a worker when nothing has had to wait for so long and the others have "
     "time; 30 by default",
     [](Options& o, Text v) {
       return assign(parse_seconds(v, Zero::kRefused), o.config.scale_down_after);
     }},
    {0, "max-unacked", "N",
     "How many workers may be starting at a time; the number of CPUs by default",
     apply_max_unacked},
    {0, "max-upgrade-additional", "N",
     "How many workers more than the number may run during a smooth upgrade; any by default",
     [](Options& o, Text v) { return assign(parse_count(v), o.config.max_upgrade_additional); }},
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
    {0, "hook-before-start", "CMD",
     "Run this before every start of a worker, and start it only if that exits with 0; as all "
     "hooks: words as of a shell, without one",
     [](Options& o, Text v) { return apply_hook(o, pool::Hook::kBeforeStart, v); }, false,
     Form::kWords},
    {0, "hook-after-ack", "CMD", "Run this when a worker has been ACKed",
     [](Options& o, Text v) { return apply_hook(o, pool::Hook::kAfterAck, v); }, false,
     Form::kWords},
    {0, "hook-before-stop", "CMD",
     "Run this before a worker gets its stop signal, which is sent when it is over",
     [](Options& o, Text v) { return apply_hook(o, pool::Hook::kBeforeStop, v); }, false,
     Form::kWords},
    {0, "hook-after-exit", "CMD", "Run this when a worker has ended, however it did",
     [](Options& o, Text v) { return apply_hook(o, pool::Hook::kAfterExit, v); }, false,
     Form::kWords},
    {0, "hook-before-upgrade", "CMD",
     "Run this before every upgrade, and upgrade only if it exits with 0",
     [](Options& o, Text v) { return apply_hook(o, pool::Hook::kBeforeUpgrade, v); }, false,
     Form::kWords},
    {0, "hook-after-upgrade", "CMD", "Run this when an upgrade is over, or was rolled back",
     [](Options& o, Text v) { return apply_hook(o, pool::Hook::kAfterUpgrade, v); }, false,
     Form::kWords},
    {0, "hook-shell", nullptr, "Give the hooks' commands to /bin/sh as they are",
     [](Options& o, Text) { return set(o.hook_shell); }},
    {0, "hook-timeout", "SECONDS", "End a hook that takes longer; 30 by default",
     [](Options& o, Text v) { return apply_hook_timeout(o.settings.hook_timeout, v); }},
    {0, "hook-upgrade-timeout", "SECONDS",
     "The same for those before and after an upgrade; 300 by default",
     [](Options& o, Text v) { return apply_hook_timeout(o.settings.hook_upgrade_timeout, v); }},
    {0, "env", "NAME=VALUE", "Set this variable for workers; may be repeated", apply_env, false,
     Form::kRepeat},
    {0, "env-file", "PATH",
     "Set the variables in this file for workers: NAME=VALUE, one a line; read again at every "
     "upgrade; may be repeated",
     apply_env_file, false, Form::kRepeat},
    {0, "ping-timeout", "SECONDS",
     "A worker that has pinged once and then is silent for so long hangs: its stack is taken, it "
     "is "
     "replaced and stopped",
     apply_ping_timeout},
    {0, "request-timeout", "SECONDS",
     "The same for a worker that has said it is busy, and not that it is done, for so long",
     apply_request_timeout},
    {0, "dump-signal", "SIG",
     "Sent to a worker that hangs before it is stopped, so that it prints where it is: QUIT for "
     "Go, "
     "what faulthandler is registered for in Python",
     apply_dump_signal},
    {0, "probe", "URL",
     "Ask each worker whether it is well: http://ADDRESS/PATH, tcp://ADDRESS or tcp. The address "
     "is "
     "the worker's own: it names {index}, {N+index} or {pid}; {addr} stands for --probe-address",
     [](Options& o, Text v) -> Status {
       o.settings.probe = v;
       return Ok{};
     }},
    {0, "probe-address", "ADDRESS",
     "Each worker's own address, as 127.0.0.1:{9100+index}; workers find theirs in "
     "EINHORN_PROBE_ADDRESS",
     [](Options& o, Text v) -> Status {
       o.settings.probe_address = v;
       return Ok{};
     }},
    {0, "probe-command", "COMMAND",
     "Instead of --probe: a command of the shell that ends with 0 if the worker of "
     "EINHORN_WORKER_PID is well",
     [](Options& o, Text v) -> Status {
       o.settings.probe_command = v;
       return Ok{};
     }},
    {0, "probe-interval", "SECONDS", "How often; 10 by default", apply_probe_interval},
    {0, "probe-timeout", "SECONDS", "How long an answer may take; 5 by default",
     apply_probe_timeout},
    {0, "probe-failures", "N", "A worker whose probe fails so often in a row hangs; 3 by default",
     apply_probe_failures},
    {0, "max-memory", "SIZE[,OPT]...",
     "Replace a worker, once its replacement is up, whose resident memory is more than SIZE (300M, "
     "1G) in 3 of 5 samples. OPT: times=K/N other samples than these, hard=SIZE kill it at once "
     "above that",
     apply_max_memory},
    {0, "max-pss", "SIZE[,OPT]...",
     "The same for memory of which shared pages count by part; costs much more to measure",
     apply_max_pss},
    {0, "max-cpu", "PERCENT[,OPT]...",
     "The same for percent of one CPU. OPT also: over=SECONDS, what the use is averaged over; 60 "
     "by "
     "default",
     apply_max_cpu},
    {0, "max-descriptors", "N[,OPT]...", "The same for open descriptors", apply_max_descriptors},
    {0, "max-threads", "N[,OPT]...", "The same for threads", apply_max_threads},
    {0, "max-age", "SECONDS", "Replace a worker that is so old, once its replacement is up",
     apply_max_age},
    {0, "max-requests", "N", "Replace a worker after so many requests, by what its pings say",
     apply_max_requests},
    {0, "recycle-jitter", "PERCENT",
     "Age and requests end up to so much earlier, another part for each worker; 10 by default",
     apply_recycle_jitter},
    {0, "max-recycling", "N",
     "Replace no more than N workers at a time for their limits; 1 by default",
     apply_max_recycling},
    {0, "sample-interval", "SECONDS",
     "How often workers are measured for these limits; 2 by default", apply_sample_interval},
    {0, "flapping", "N/SECONDS",
     "Leave an index empty for a while when its workers have died N times within SECONDS (5/300); "
     "never by default",
     apply_flapping},
    {0, "flapping-pause", "SECONDS", "For how long; 600 by default", apply_flapping_pause},
    {0, "flapping-retries", "N",
     "After so many pauses within two hours leave it empty until an upgrade, inc, dec or "
     "set_workers; 5 by default",
     apply_flapping_retries},
    {0, "rlimit", "NAME=SOFT[:HARD]",
     "A resource limit of every worker, by setrlimit(2): core, cpu, data, fsize, memlock, nofile, "
     "nproc, stack, as and others; may be repeated",
     apply_rlimit},
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
     apply_drop_env_var, false, Form::kRepeat},
    {0, "reexec-as", "CMDLINE", "What to run in place of einhorn itself when upgrading",
     apply_reexec_as, false, Form::kWords},
    {0, "nice", "MASTER[:WORKER[:RENICE_CMD]]",
     "Nice levels of the master and of workers, -20 to 19, and a command that sets them where "
     "Einhorn lacks the right to, such as `sudo renice`",
     apply_nice},
    {0, "preload-language", "NAME",
     "The language of --preload where the ending does not tell it: python, ruby, perl, php, c",
     apply_preload_language},
    {0, "preload-interpreter", "PROGRAM",
     "The interpreter that loads --preload; by default the command's own, or the usual one of PATH",
     [](Options& o, Text v) -> Status {
       o.settings.preload_interpreter = v;
       return Ok{};
     }},
    {0, "preload-command", "CMD",
     "Instead of --preload: a program that loads the code and forks the workers itself, by the "
     "protocol of docs/preload.md",
     apply_preload_command},
    {0, "preload-timeout", "SECONDS", "How long loading may take; 300 by default",
     [](Options& o, Text v) {
       return assign(parse_seconds(v, Zero::kRefused), o.settings.preload_timeout);
     }},
    {0, "preload-fallback", nullptr,
     "Where code can't be preloaded, execute the command as without --preload, instead of failing",
     [](Options& o, Text) { return set(o.settings.preload_fallback); }},
    {0, "ionice", "CLASS[:LEVEL]",
     "The I/O priority of workers: idle, best-effort[:0-7] or realtime[:0-7]",
     [](Options& o, Text v) {
       return assign(os::parse_io_priority(v), o.settings.privileges.io_priority);
     }},
    {0, "oom-score-adj", "N",
     "How soon the kernel ends a worker when memory is short: -1000, never, to 1000, first",
     [](Options& o, Text v) {
       return assign(parse_integer(v, -1000, 1000), o.settings.privileges.oom_score_adj);
     }},
    {0, "cpu-affinity", "each|node|LIST",
     "On which CPUs workers run: each on one of its own, spread over NUMA nodes; each on one NUMA "
     "node; or all on those of a list such as 0-3,8",
     apply_cpu_affinity},
    {0, "user", "USER", "Run workers as this user, by name or number, with all of its groups",
     [](Options& o, Text v) -> Status {
       o.user = v;
       return Ok{};
     }},
    {0, "group", "GROUP[,GROUP...]",
     "Run workers as this group, by name or number, and as members of those behind it", apply_group,
     false, Form::kRepeat},
    {0, "umask", "OCTAL", "The file mode creation mask of workers", apply_umask},
    {0, "chroot", "DIR", "Run workers with this directory as their root; the program lies in it",
     apply_chroot},
    {0, "no-new-privs", nullptr,
     "Workers gain no rights by programs that are set-user-ID or have capabilities",
     [](Options& o, Text) { return set(o.settings.privileges.no_new_privs); }},
    {0, "capabilities", "CAP[,CAP...]",
     "Workers keep these capabilities, such as cap_net_bind_service, and lose all others; none "
     "keeps none",
     apply_capabilities, false, Form::kRepeat},
    {0, "master-user", "USER",
     "Run the master as this user too; the guard keeps what it needs to start one",
     [](Options& o, Text v) -> Status {
       o.master_user = v;
       return Ok{};
     }},
    {0, "gc-before-fork", nullptr,
     "Collect garbage, and compact the heap where that is possible, once before workers are "
     "forked; "
     "of a meaning for --preload only",
     [](Options& o, Text) { return set(o.settings.gc_before_fork); }},
    {0, "intercept", "[MODE|FROM=TO]",
     "For programs that know nothing of Einhorn: a worker that binds the address of a -b itself "
     "gets "
     "the shared socket. MODE is auto, the default, seccomp, or preload; FROM=TO (3000=8080): what "
     "it binds as FROM is the -b with the port, or the name, TO; may be repeated",
     apply_intercept, true, Form::kRepeat},
    {0, "intercept-all", nullptr, "Log every address that a worker binds, also those of no -b",
     apply_intercept_all},
    {0, "intercept-io-uring", nullptr,
     "Leave io_uring to intercepted programs; what they bind through it is not seen",
     [](Options& o, Text) { return set(o.settings.intercept_io_uring); }},
    {0, "config", "FILE",
     "Take options from this file, in YAML; those on the command line come before its own",
     [](Options& o, Text v) -> Status {
       o.config_path = v;
       return Ok{};
     }},
    {0, "pool", "NAME", "Run this one of the pools that the config file has",
     [](Options& o, Text v) -> Status {
       o.pool = v;
       return Ok{};
     }},
    {0, "daemonize", nullptr,
     "Go into the background; end with status 0 once the workers are up. Needs --log-file",
     [](Options& o, Text) { return set(o.daemonize); }},
    {0, "check-config", nullptr, "Check the options and the config file, start nothing",
     [](Options& o, Text) { return set_mode(o, Mode::kCheckConfig); }},
    {0, "print-config", nullptr,
     "Show every option that has a value, and where it comes from; secrets are left out",
     [](Options& o, Text) { return set_mode(o, Mode::kPrintConfig); }},
    {0, "config-schema", nullptr, "Show the JSON schema of config files, for editors",
     [](Options& o, Text) { return set_mode(o, Mode::kConfigSchema); }},
    {0, "cgroup", "WHO",
     "Who shares a control group with the limits below: each worker has one of its own (worker, "
     "the default), or all workers have one together (pool)",
     apply_cgroup},
    {0, "cgroup-memory", "SIZE", "Memory that a control group may use, such as 300M",
     [](Options& o, Text v) { return assign(parse_memory(v), o.settings.cgroup_memory); }},
    {0, "cgroup-cpu", "PERCENT%", "CPU time that a control group may use; 100% is one CPU",
     apply_cgroup_cpu},
    {0, "cgroup-pids", "N", "Processes and threads that a control group may have",
     [](Options& o, Text v) {
       return assign(parse_integer(v, 1, 4'194'304), o.settings.cgroup_pids);
     }},
    {0, "capture", "[PATH]",
     "Read what workers write to standard output and error, tag each line with time, worker and "
     "version, and append it to this file, reopened on SIGUSR1; standard error by default",
     apply_capture, true},
    {0, "capture-file", "PATH", "--capture into this file", apply_capture},
    {0, "capture-fd", "FD", "[Internal] Read the output of workers, on behalf of a master",
     apply_capture_fd},
    {0, "agent", "ADDRESS[:PORT]",
     "Start einhorn-agent beside the pool and keep it up: its page, metrics and health checks are "
     "there (127.0.0.1, port 9100 if none is given)",
     apply_agent},
    {0, "agent-args", "WORDS",
     "With --agent: more options for it, such as `--history shop.db --statsd 127.0.0.1:8125`",
     apply_agent_args, false, Form::kWords},
    {0, "drain", "SECONDS",
     "With --intercept: before its stop signal a worker gets no new connections, and has so long "
     "to "
     "finish those that it has; 0, the default: the signal comes at once",
     [](Options& o, Text v) {
       return assign(parse_seconds(v, Zero::kAllowed), o.settings.intercept_drain);
     }},
    {0, "listen-probe", "PROBE",
     "With -m listen: a worker counts as up when it has accepted a connection (tcp), or has also "
     "answered GET PATH on it with a status from 200 to 399 (http:PATH)",
     apply_listen_probe},
    {0, "intercept-fd", "FD", "[Internal] Watch over intercepted programs, on behalf of a master",
     apply_intercept_fd},
    {0, "probe-fd", "FD", "[Internal] Ask workers whether they are well, on behalf of a master",
     apply_probe_fd},
    {0, "with-state-fd", "FD", "[Internal] Take over from another master, whose state is on FD",
     apply_state_fd},
    {0, "upgrade-check", nullptr,
     "[Internal] End with status 0 if this command line could be taken over",
     [](Options& o, Text) { return set_mode(o, Mode::kUpgradeCheck); }},
    {0, "version", nullptr, "Show the version",
     [](Options& o, Text) { return set_mode(o, Mode::kVersion); }},
});

}  // namespace

std::span<const OptionRule> option_table() { return kTable; }

const OptionRule* find_option(std::string_view name) {
  const auto found = std::find_if(kTable.begin(), kTable.end(),
                                  [name](const OptionRule& rule) { return rule.name == name; });
  return found != kTable.end() ? &*found : nullptr;
}

std::string label(const OptionRule& rule) {
  const std::string letter = rule.letter != 0 ? std::string{'-', rule.letter, '/'} : "";
  return letter + "--" + rule.name;
}

}  // namespace einhorn::master
