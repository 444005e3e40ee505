#include <chrono>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "master/option_table.h"
#include "master/options.h"
#include "master/shell_words.h"

namespace einhorn::master {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Mode = Options::Mode;
using Words = std::vector<std::string>;

Options parse(const Words& words) {
  Result<Options> options = parse_options(words);
  EXPECT_TRUE(options.has_value())
      << ::testing::PrintToString(words) << ": " << (options ? "" : options.error().message());
  return options ? *options : Options{};
}

std::string refusal(const Words& words) {
  Result<Options> options = parse_options(words);
  return options ? "accepted" : options.error().message();
}

// --- right uses ---------------------------------------------------------------------------------

struct RightUse {
  const char* option;  // the long name, for the check that every one is here
  Words words;
  std::function<bool(const Options&)> holds;
};

const std::vector<RightUse>& right_uses() {
  static const std::vector<RightUse> uses = {
      {"bind",
       {"-b", "127.0.0.1:80,r", "--bind=8080", "-b[::1]:0"},
       [](const Options& o) {
         return o.binds.size() == 3 && o.binds[0].text == "127.0.0.1:80,r" &&
                o.binds[0].reuse_address && o.binds[1].port == 8080 && o.binds[2].host == "::1";
       }},
      {"command-name", {"-c", "shop"}, [](const Options& o) { return o.settings.name == "shop"; }},
      {"command-name",
       {"--command-name", "my shop.1"},
       [](const Options& o) { return o.settings.name == "my shop.1"; }},
      {"socket-path",
       {"-d", "/x/s"},
       [](const Options& o) {
         return o.settings.socket_path == "/x/s" && o.settings.socket_path_given == "/x/s";
       }},
      {"pidfile",
       {"-e", "p"},
       [](const Options& o) {
         return o.settings.pidfile == "p" && o.settings.pidfile_given == "p";
       }},
      {"lockfile",
       {"--lockfile=l"},
       [](const Options& o) {
         return o.settings.lockfile == "l" && o.settings.lockfile_given == "l";
       }},
      {"command-socket-as-fd",
       {"-g"},
       [](const Options& o) { return o.settings.command_socket_as_fd; }},
      {"help", {"-h"}, [](const Options& o) { return o.mode == Mode::kHelp; }},
      {"kill-children-on-exit",
       {"-gk"},
       [](const Options& o) {
         return o.settings.kill_children_on_exit && o.settings.command_socket_as_fd;
       }},
      {"backlog", {"-l", "1"}, [](const Options& o) { return o.settings.backlog == 1; }},
      {"backlog",
       {"--backlog", "65535"},
       [](const Options& o) { return o.settings.backlog == 65535; }},
      {"ack-mode",
       {"-m", "manual"},
       [](const Options& o) { return o.config.ack_mode == pool::AckMode::kManual; }},
      {"ack-mode",
       {"--ack-mode=notify"},
       [](const Options& o) { return o.config.ack_mode == pool::AckMode::kNotify; }},
      {"ack-mode",
       {"-m", "listen", "--intercept"},
       [](const Options& o) { return o.config.ack_mode == pool::AckMode::kListen; }},
      {"intercept",
       {"--intercept"},
       [](const Options& o) {
         return o.intercept == Options::Intercept::kAuto && o.config.stop_signal == SIGTERM &&
                o.config.ack_mode == pool::AckMode::kListen && o.settings.intercept_rules.empty();
       }},
      {"intercept",
       {"--intercept=seccomp", "--stop-signal", "QUIT", "-m2"},
       [](const Options& o) {
         return o.intercept == Options::Intercept::kSeccomp && o.config.stop_signal == SIGQUIT &&
                o.config.ack_mode == pool::AckMode::kTimer;
       }},
      {"intercept",
       {"--intercept", "3000=8080", "--intercept=unix:/a=web"},
       [](const Options& o) {
         return o.settings.intercept_rules == std::vector<std::string>{"3000=8080", "unix:/a=web"};
       }},
      {"intercept-all",
       {"--intercept-all"},
       [](const Options& o) {
         return o.settings.intercept_all && o.intercept == Options::Intercept::kAuto;
       }},
      {"intercept-io-uring",
       {"--intercept-io-uring"},
       [](const Options& o) { return o.settings.intercept_io_uring; }},
      {"intercept-fd",
       {"--intercept-fd", "7"},
       [](const Options& o) { return o.mode == Mode::kWatch && o.state_fd == 7; }},
      {"ack-mode",
       {"-m", "manual", "-m1.5"},
       [](const Options& o) {
         return o.config.ack_mode == pool::AckMode::kTimer &&
                o.config.ack_delay == milliseconds{1500};
       }},
      {"ack-mode", {"-m", "0"}, [](const Options& o) { return o.config.ack_delay == seconds{0}; }},
      {"number", {"-n3"}, [](const Options& o) { return o.config.number == 3; }},
      {"number", {"--num", "100000"}, [](const Options& o) { return o.config.number == 100000; }},
      {"number", {"-n", "007"}, [](const Options& o) { return o.config.number == 7; }},
      {"quiet", {"-q"}, [](const Options& o) { return o.settings.verbosity == 2; }},
      {"quiet", {"-qqq"}, [](const Options& o) { return o.settings.verbosity == 2; }},
      {"quiet", {"-qv"}, [](const Options& o) { return o.settings.verbosity == 1; }},
      {"verbose", {"-v", "-v"}, [](const Options& o) { return o.settings.verbosity == 0; }},
      {"seconds",
       {"-s", "0.1"},
       [](const Options& o) { return o.config.seconds == milliseconds{100}; }},
      {"seconds", {"-s", "1e1"}, [](const Options& o) { return o.config.seconds == seconds{10}; }},
      {"signal-timeout",
       {"-t", "5"},
       [](const Options& o) { return o.config.signal_timeout == seconds{5}; }},
      {"signal-timeout",
       {"--signal-timeout=1.5"},
       [](const Options& o) { return o.config.signal_timeout == milliseconds{1500}; }},
      {"ack-timeout",
       {"--ack-timeout", "0"},
       [](const Options& o) { return o.config.ack_timeout == seconds{0}; }},
      {"ack-timeout",
       {"--ack-timeout=60"},
       [](const Options& o) { return o.config.ack_timeout == seconds{60}; }},
      {"give-up", {"--give-up", "3"}, [](const Options& o) { return o.config.give_up == 3; }},
      {"stop-signal",
       {"--stop-signal", "term"},
       [](const Options& o) { return o.config.stop_signal == SIGTERM; }},
      {"stop-signal",
       {"--stop-signal=SIGQUIT"},
       [](const Options& o) { return o.config.stop_signal == SIGQUIT; }},
      {"max-unacked",
       {"--max-unacked", "2"},
       [](const Options& o) {
         return o.config.max_unacked == 2 && o.settings.max_unacked_given == 2U;
       }},
      {"max-upgrade-additional",
       {"--max-upgrade-additional=4"},
       [](const Options& o) { return o.config.max_upgrade_additional == 4U; }},
      {"drain-timeout",
       {"--drain-timeout", "0.5"},
       [](const Options& o) { return o.config.drain_timeout == milliseconds{500}; }},
      {"canary", {"--canary", "0"}, [](const Options& o) { return o.config.canary == 0; }},
      {"canary", {"--canary", "2"}, [](const Options& o) { return o.config.canary == 2; }},
      {"canary-seconds",
       {"--canary-seconds", "2"},
       [](const Options& o) { return o.config.canary_seconds == seconds{2}; }},
      {"upgrade-failures",
       {"--upgrade-failures", "0"},
       [](const Options& o) { return o.config.upgrade_failures == 0; }},
      {"upgrade-timeout",
       {"--upgrade-timeout", "600"},
       [](const Options& o) { return o.config.upgrade_timeout == seconds{600}; }},
      {"chdir", {"--chdir", "app"}, [](const Options& o) { return o.settings.directory == "app"; }},
      {"socket-mode",
       {"--socket-mode", "0660"},
       [](const Options& o) { return o.settings.socket_mode == 0660; }},
      {"socket-group",
       {"--socket-group", "www"},
       [](const Options& o) { return o.settings.socket_group == "www"; }},
      {"log-format",
       {"--log-format", "json"},
       [](const Options& o) { return o.settings.log_json; }},
      {"log-format",
       {"--log-format=json", "--log-format=text"},
       [](const Options& o) { return !o.settings.log_json; }},
      {"log-file",
       {"--log-file", "l"},
       [](const Options& o) { return o.settings.log_file == "l"; }},
      {"drop-env-var",
       {"--drop-env-var", "A", "--drop-env-var", "B"},
       [](const Options& o) {
         return o.settings.drop_environment == Words{"A", "B"};
       }},
      {"reexec-as",
       {"--reexec-as", "bundle exec 'my einhorn'"},
       [](const Options& o) {
         return o.settings.reexec_commandline == Words{"bundle", "exec", "my einhorn"};
       }},
      {"nice",
       {"--nice", "-5"},
       [](const Options& o) { return o.settings.nice_master == -5 && !o.settings.nice_worker; }},
      {"nice",
       {"--nice=1:19:/opt/renice -x"},
       [](const Options& o) {
         return o.settings.nice_master == 1 && o.settings.nice_worker == 19 &&
                o.settings.renice_command == "/opt/renice -x";
       }},
      {"gc-before-fork",
       {"--gc-before-fork"},
       [](const Options& o) { return o.settings.gc_before_fork; }},
      {"with-state-fd",
       {"--with-state-fd", "7"},
       [](const Options& o) { return o.mode == Mode::kMaster && o.state_fd == 7; }},
      {"upgrade-check",
       {"--upgrade-check"},
       [](const Options& o) { return o.mode == Mode::kUpgradeCheck; }},
      {"version", {"--version"}, [](const Options& o) { return o.mode == Mode::kVersion; }},
  };
  return uses;
}

TEST(MasterOptions, EveryOptionDoesWhatItSays) {
  for (const RightUse& use : right_uses()) {
    Words words = use.words;
    words.insert(words.end(), {"server", "-n", "9"});
    const Options options = parse(words);
    EXPECT_TRUE(use.holds(options)) << ::testing::PrintToString(words);
    const bool goes_on = options.mode == Mode::kRun ||
                         (options.mode == Mode::kMaster || options.mode == Mode::kWatch);
    EXPECT_EQ(options.command, goes_on ? Words({"server", "-n", "9"}) : Words());
    EXPECT_EQ(options.settings.original_command, options.command);
  }
}

// --- wrong uses ---------------------------------------------------------------------------------

struct WrongUse {
  const char* option;
  Words words;
  const char* message;
};

#define NUMBER_OF_WORKERS "(allowed: 1 to 100000)"
#define SOME_SECONDS "(allowed: more than 0 to 1000000000 seconds)"
#define ANY_SECONDS "(allowed: 0 to 1000000000 seconds)"

const std::vector<WrongUse>& wrong_uses() {
  static const std::vector<WrongUse> uses = {
      {"bind", {"-b"}, "-b/--bind: its value is missing: ADDR"},
      {"bind", {"-b", ""}, "-b/--bind: its value is empty"},
      {"bind", {"-b", "1.2.3.4:99999"}, R"(-b 1.2.3.4:99999: the port "99999" is not in 0..65535)"},
      {"command-name",
       {"-c", "a/b"},
       R"(-c/--command-name: "a/b" can't be part of a file name (allowed: no slashes and no control characters))"},
      {"command-name",
       {"-c", "a\nb"},
       R"(-c/--command-name: "a\nb" can't be part of a file name (allowed: no slashes and no control characters))"},
      {"command-name", {"-c"}, "-c/--command-name: its value is missing: CMD_NAME"},
      {"socket-path", {"-d"}, "-d/--socket-path: its value is missing: PATH"},
      {"socket-path", {"--socket-path="}, "-d/--socket-path: its value is empty"},
      {"pidfile", {"--pidfile"}, "-e/--pidfile: its value is missing: PIDFILE"},
      {"pidfile", {"-e", ""}, "-e/--pidfile: its value is empty"},
      {"lockfile", {"-f"}, "-f/--lockfile: its value is missing: LOCKFILE"},
      {"lockfile", {"-f", ""}, "-f/--lockfile: its value is empty"},
      {"command-socket-as-fd",
       {"--command-socket-as-fd=yes"},
       "-g/--command-socket-as-fd: it takes no value"},
      {"command-socket-as-fd", {"-g=1"}, "-g/--command-socket-as-fd: it takes no value"},
      {"help", {"--help=1"}, "-h/--help: it takes no value"},
      {"help", {"--hulp"}, R"(unknown option "--hulp" (did you mean --help?))"},
      {"kill-children-on-exit", {"-k=3"}, "-k/--kill-children-on-exit: it takes no value"},
      {"kill-children-on-exit", {"--kill=3"}, "-k/--kill-children-on-exit: it takes no value"},
      {"backlog",
       {"-l", "abc"},
       R"(-l/--backlog: "abc" is not a whole number (allowed: 1 to 65535))"},
      {"backlog", {"-l", "-1"}, R"(-l/--backlog: "-1" is out of range (allowed: 1 to 65535))"},
      {"backlog",
       {"-l", "65536"},
       R"(-l/--backlog: "65536" is out of range (allowed: 1 to 65535))"},
      {"ack-mode",
       {"-m", "sometimes"},
       R"(-m/--ack-mode: "sometimes" is no way to ACK (allowed: 0 or more seconds, manual, notify, listen))"},
      {"ack-mode",
       {"-m", "-1"},
       R"(-m/--ack-mode: "-1" is no way to ACK (allowed: 0 or more seconds, manual, notify, listen))"},
      {"ack-mode",
       {"-m", "inf"},
       R"(-m/--ack-mode: "inf" is no way to ACK (allowed: 0 or more seconds, manual, notify, listen))"},
      {"number", {"-n"}, "-n/--number: its value is missing: N"},
      {"number", {"-n", "abc"}, R"(-n/--number: "abc" is not a whole number )" NUMBER_OF_WORKERS},
      {"number", {"-n", "1.5"}, R"(-n/--number: "1.5" is not a whole number )" NUMBER_OF_WORKERS},
      {"number", {"-n", "0"}, R"(-n/--number: "0" is out of range )" NUMBER_OF_WORKERS},
      {"number",
       {"-n", "99999999999999999999"},
       R"(-n/--number: "99999999999999999999" is out of range )" NUMBER_OF_WORKERS},
      {"preload",
       {"-p", "code.rb"},
       "-p/--preload: preloading is not available yet; start the program without it"},
      {"preload", {"--preload"}, "-p/--preload: its value is missing: PATH"},
      {"quiet", {"--quiet=1"}, "-q/--quiet: it takes no value"},
      {"quiet", {"-Q"}, R"(unknown option "-Q" (did you mean -q?))"},
      {"seconds", {"-s", "0"}, R"(-s/--seconds: "0" is out of range )" SOME_SECONDS},
      {"seconds", {"-s", "-1"}, R"(-s/--seconds: "-1" is out of range )" SOME_SECONDS},
      {"seconds", {"-s", "1e-10"}, R"(-s/--seconds: "1e-10" is out of range )" SOME_SECONDS},
      {"seconds", {"-s", "2e9"}, R"(-s/--seconds: "2e9" is out of range )" SOME_SECONDS},
      {"seconds", {"-s", "1s"}, R"(-s/--seconds: "1s" is not a number )" SOME_SECONDS},
      {"signal-timeout",
       {"-t", "0.9"},
       R"(-t/--signal-timeout: "0.9" is not a number of seconds from 1 on)"},
      {"signal-timeout",
       {"-t", "abc"},
       R"(-t/--signal-timeout: "abc" is not a number of seconds from 1 on)"},
      {"verbose", {"--verbose=1"}, "-v/--verbose: it takes no value"},
      {"verbose", {"-V"}, R"(unknown option "-V" (did you mean -v?))"},
      {"ack-timeout",
       {"--ack-timeout", "-1"},
       R"(--ack-timeout: "-1" is out of range )" ANY_SECONDS},
      {"ack-timeout",
       {"--ack-timeout", "nan"},
       R"(--ack-timeout: "nan" is not a number )" ANY_SECONDS},
      {"give-up",
       {"--give-up", "-1"},
       R"(--give-up: "-1" is out of range (allowed: 0 to 1000000))"},
      {"give-up", {"--give-up"}, "--give-up: its value is missing: N"},
      {"stop-signal",
       {"--stop-signal", "NOPE"},
       R"(--stop-signal: "NOPE" is no signal (allowed: a name such as USR2, TERM, QUIT or INT))"},
      {"stop-signal",
       {"--stop-signal", "STOP"},
       R"(--stop-signal: "STOP" does not end a process (allowed: a name such as USR2, TERM, QUIT or INT))"},
      {"max-unacked",
       {"--max-unacked", "0"},
       R"(--max-unacked: "0" is out of range )" NUMBER_OF_WORKERS},
      {"max-unacked",
       {"--max-unacked", "x"},
       R"(--max-unacked: "x" is not a whole number )" NUMBER_OF_WORKERS},
      {"max-upgrade-additional",
       {"--max-upgrade-additional", "-1"},
       R"(--max-upgrade-additional: "-1" is out of range )" NUMBER_OF_WORKERS},
      {"max-upgrade-additional",
       {"--max-upgrade", "abc"},
       R"(--max-upgrade-additional: "abc" is not a whole number )" NUMBER_OF_WORKERS},
      {"drain-timeout",
       {"--drain-timeout", "0"},
       R"(--drain-timeout: "0" is out of range )" SOME_SECONDS},
      {"drain-timeout", {"--drain", "x"}, R"(--drain-timeout: "x" is not a number )" SOME_SECONDS},
      {"canary", {"--canary", "-1"}, R"(--canary: "-1" is out of range (allowed: 0 to 100000))"},
      {"canary",
       {"--canary", "x"},
       R"(--canary: "x" is not a whole number (allowed: 0 to 100000))"},
      {"canary-seconds",
       {"--canary-seconds", "-0.1"},
       R"(--canary-seconds: "-0.1" is out of range )" ANY_SECONDS},
      {"canary-seconds", {"--canary-seconds", ""}, "--canary-seconds: its value is empty"},
      {"upgrade-failures",
       {"--upgrade-failures", "1000001"},
       R"(--upgrade-failures: "1000001" is out of range (allowed: 0 to 1000000))"},
      {"upgrade-failures",
       {"--upgrade-failures", "+3"},
       R"(--upgrade-failures: "+3" is not a whole number (allowed: 0 to 1000000))"},
      {"upgrade-timeout",
       {"--upgrade-timeout", "0"},
       R"(--upgrade-timeout: "0" is out of range )" SOME_SECONDS},
      {"upgrade-timeout",
       {"--upgrade-timeout"},
       "--upgrade-timeout: its value is missing: SECONDS"},
      {"chdir", {"--chdir"}, "--chdir: its value is missing: DIR"},
      {"chdir", {"--chdir", ""}, "--chdir: its value is empty"},
      {"socket-mode",
       {"--socket-mode", "rw"},
       R"(--socket-mode: "rw" is no file mode (allowed: octal, 0 to 0777))"},
      {"socket-mode",
       {"--socket-mode", "0888"},
       R"(--socket-mode: "0888" is no file mode (allowed: octal, 0 to 0777))"},
      {"socket-mode",
       {"--socket-mode", "1777"},
       R"(--socket-mode: "1777" is no file mode (allowed: octal, 0 to 0777))"},
      {"socket-group", {"--socket-group"}, "--socket-group: its value is missing: GROUP"},
      {"socket-group", {"--socket-group="}, "--socket-group: its value is empty"},
      {"log-format",
       {"--log-format", "xml"},
       R"(--log-format: "xml" is no format of the log (allowed: text, json))"},
      {"log-format", {"--log-format"}, "--log-format: its value is missing: FORMAT"},
      {"log-file", {"--log-file"}, "--log-file: its value is missing: PATH"},
      {"log-file", {"--log-file", ""}, "--log-file: its value is empty"},
      {"drop-env-var", {"--drop-env-var"}, "--drop-env-var: its value is missing: VAR_NAME"},
      {"drop-env-var",
       {"--drop-env-var", "A=1"},
       R"(--drop-env-var: "A=1" is no name of a variable (allowed: a name without "="))"},
      {"reexec-as", {"--reexec-as", "a 'b"}, R"(--reexec-as: "a 'b" has an unbalanced ')"},
      {"reexec-as", {"--reexec-as", " "}, R"(--reexec-as: " " names no program)"},
      {"nice", {"--nice", "abc"}, R"(--nice: "abc" is not a whole number (allowed: -20 to 19))"},
      {"nice", {"--nice", "1:20"}, R"(--nice: "20" is out of range (allowed: -20 to 19))"},
      {"nice", {"--nice", "1:2:"}, R"(--nice: "1:2:" ends where RENICE_CMD should be)"},
      {"gc-before-fork", {"--gc-before-fork=yes"}, "--gc-before-fork: it takes no value"},
      {"gc-before-fork",
       {"--gc-before-frok"},
       R"(unknown option "--gc-before-frok" (did you mean --gc-before-fork?))"},
      {"ack-mode", {"-m", "listen", "x"}, "-m/--ack-mode: \"listen\" needs --intercept"},
      {"intercept",
       {"--intercept=maybe"},
       "--intercept: \"maybe\": neither a way to intercept nor a rule (allowed: auto, seccomp, "
       "PORT=PORT, HOST:PORT=PORT, unix:PATH=NAME; a NAME of a -b may stand for the last PORT)"},
      {"intercept", {"--intercept="}, "--intercept: its value is empty"},
      {"intercept-all", {"--intercept-all=1"}, "--intercept-all: it takes no value"},
      {"intercept-all",
       {"--intercept-al1"},
       R"(unknown option "--intercept-al1" (did you mean --intercept-all?))"},
      {"intercept-io-uring", {"--intercept-io-uring=1"}, "--intercept-io-uring: it takes no value"},
      {"intercept-io-uring",
       {"--intercept-io-urin9"},
       R"(unknown option "--intercept-io-urin9" (did you mean --intercept-io-uring?))"},
      {"intercept-fd", {"--intercept-fd"}, "--intercept-fd: its value is missing: FD"},
      {"intercept-fd",
       {"--intercept-fd", "x"},
       R"(--intercept-fd: "x" is not a whole number (allowed: 0 to 2147483647))"},
      {"with-state-fd",
       {"--with-state-fd", "abc"},
       R"(--with-state-fd: "abc" is not a whole number (allowed: 0 to 2147483647))"},
      {"with-state-fd",
       {"--with-state-fd", "-1"},
       R"(--with-state-fd: "-1" is out of range (allowed: 0 to 2147483647))"},
      {"upgrade-check", {"--upgrade-check=1"}, "--upgrade-check: it takes no value"},
      {"upgrade-check", {"--upgrade-chec", "--x"}, "accepted"},  // an abbreviation, and final
      {"upgrade-check",
       {"--upgrade"},
       R"(ambiguous option "--upgrade": it may be --upgrade-failures, --upgrade-timeout, --upgrade-check)"},
      {"version", {"--version=1"}, "--version: it takes no value"},
      {"version", {"--versoin"}, R"(unknown option "--versoin" (did you mean --version?))"},
  };
  return uses;
}

TEST(MasterOptions, EveryWrongUseIsNamed) {
  for (const WrongUse& use : wrong_uses()) {
    EXPECT_EQ(refusal(use.words), use.message) << ::testing::PrintToString(use.words);
  }
}

TEST(MasterOptions, TheTablesOfThisTestAreComplete) {
  std::multiset<std::string> right;
  std::multiset<std::string> wrong;
  for (const RightUse& use : right_uses()) {
    right.insert(use.option);
  }
  for (const WrongUse& use : wrong_uses()) {
    wrong.insert(use.option);
  }
  for (const OptionRule& rule : option_table()) {
    EXPECT_GE(right.count(rule.name), std::string(rule.name) == "preload" ? 0U : 1U) << rule.name;
    EXPECT_GE(wrong.count(rule.name), 2U) << rule.name;
  }
}

TEST(MasterOptions, UnknownAndAmbiguousOnes) {
  const std::vector<std::pair<Words, std::string>> table = {
      {{"--no-such-option", "x"}, R"(unknown option "--no-such-option")"},
      {{"--numbr=3", "x"}, R"(unknown option "--numbr" (did you mean --number?))"},
      {{"-Z"}, R"(unknown option "-Z")"},
      {{"-kZ"}, R"(unknown option "-Z")"},
      {{"-N", "3"}, R"(unknown option "-N" (did you mean -n?))"},
      {{"-1"}, R"(unknown option "-1")"},
      {{"-="}, R"(unknown option "-=")"},
      {{"--max", "3"},
       R"(ambiguous option "--max": it may be --max-unacked, --max-upgrade-additional)"},
      {{"--=3"}, R"(unknown option "--")"},
      {{"-k", "-n", "2", "--x\ny"}, R"(unknown option "--x\ny")"},
  };
  for (const auto& [words, message] : table) {
    EXPECT_EQ(refusal(words), message) << ::testing::PrintToString(words);
  }
}

// --- the rest -----------------------------------------------------------------------------------

TEST(MasterOptions, DefaultsAreUpstreams) {
  const Options options = parse({"sleep", "5"});
  EXPECT_EQ(options.mode, Mode::kRun);
  EXPECT_THAT(options.command, ElementsAre("sleep", "5"));
  EXPECT_EQ(options.config.number, 1U);
  EXPECT_EQ(options.config.ack_mode, pool::AckMode::kTimer);
  EXPECT_EQ(options.config.ack_delay, seconds{1});
  EXPECT_EQ(options.config.ack_timeout, seconds{300});
  EXPECT_EQ(options.config.seconds, std::nullopt);
  EXPECT_EQ(options.config.max_unacked, 0U);
  EXPECT_EQ(options.settings.max_unacked_given, std::nullopt);
  EXPECT_EQ(options.config.stop_signal, SIGUSR2);
  EXPECT_EQ(options.settings.backlog, 100);
  EXPECT_EQ(options.settings.verbosity, 1);
  EXPECT_EQ(options.settings.socket_mode, 0600U);
  EXPECT_EQ(options.settings.renice_command, "/usr/bin/renice");
  EXPECT_EQ(options.settings.socket_path + options.settings.socket_path_given, "");
}

TEST(MasterOptions, WhereTheyEnd) {
  EXPECT_THAT(parse({"-n", "2", "a", "-n", "3"}).command, ElementsAre("a", "-n", "3"));
  EXPECT_THAT(parse({"-n", "2", "--", "-n", "3"}).command, ElementsAre("-n", "3"));
  EXPECT_THAT(parse({"a", "--", "b"}).command, ElementsAre("a", "--", "b"));
  EXPECT_THAT(parse({"-", "b"}).command, ElementsAre("-", "b"));
  EXPECT_THAT(parse({"a", ""}).command, ElementsAre("a", ""));
}

TEST(MasterOptions, ModesActInTheirOrder) {
  EXPECT_EQ(parse({}).mode, Mode::kUsage);
  EXPECT_EQ(parse({"-n", "3"}).mode, Mode::kUsage);
  EXPECT_EQ(parse({"-k", "--"}).mode, Mode::kUsage);
  EXPECT_EQ(parse({"-h", "--version"}).mode, Mode::kHelp);
  EXPECT_EQ(parse({"--version", "-h", "--nonsense"}).mode, Mode::kVersion);
  EXPECT_EQ(parse({"--upgrade-check", "--", "x"}).mode, Mode::kUpgradeCheck);
  EXPECT_EQ(refusal({"--nonsense", "--version"}), R"(unknown option "--nonsense")");
  EXPECT_EQ(parse({"--with-state-fd", "3"}).mode, Mode::kMaster);
  EXPECT_THAT(parse({"--with-state-fd", "3", "--", "x"}).command, ElementsAre("x"));
}

TEST(MasterOptions, OneCallDoesNotTouchTheNext) {
  EXPECT_EQ(refusal({"-kZ"}), R"(unknown option "-Z")");
  const Options options = parse({"-n", "4", "x"});
  EXPECT_EQ(options.config.number, 4U);
  EXPECT_FALSE(options.settings.kill_children_on_exit);
  EXPECT_THAT(options.command, ElementsAre("x"));
}

TEST(MasterOptions, TooManyAddresses) {
  Words words;
  for (int i = 0; i < 257; ++i) {
    words.insert(words.end(), {"-b", "0"});
  }
  EXPECT_EQ(refusal(words), "-b/--bind: more than 256 addresses");
}

TEST(MasterUsage, HasUpstreamsShape) {
  const std::string brief = usage(false);
  const std::string full = usage(true);
  EXPECT_EQ(brief.rfind("## Usage\n", 0), 0U);
  EXPECT_THAT(brief, HasSubstr("Run `einhorn -h`"));
  EXPECT_THAT(brief, HasSubstr("    einhorn [options] program\n"));
  EXPECT_THAT(brief, HasSubstr("\n### Options\n\n    -b, --bind ADDR                  Open a"));
  EXPECT_THAT(brief, HasSubstr("\n        --version                    Show the version\n"));
  EXPECT_THAT(brief,
              HasSubstr("\n        --nice MASTER[:WORKER[:RENICE_CMD]]\n" + std::string(37, ' ')));
  for (const char* section :
       {"## Overview", "### Server sockets", "### Command socket", "### Upgrades", "### ACKs",
        "### The environment of a worker", "### Names in ps", "### Options"}) {
    EXPECT_THAT(full, HasSubstr(std::string("\n") + section + "\n\n"));
  }
  std::istringstream lines(full);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 100U) << line;
    EXPECT_TRUE(line.empty() || line.back() != ' ') << line;
  }
  for (const OptionRule& rule : option_table()) {
    EXPECT_THAT(brief, HasSubstr(std::string(" --") + rule.name));
  }
}

TEST(MasterShellWords, SplitsAsAShellDoes) {
  const std::vector<std::pair<std::string, Words>> table = {
      {"", {}},
      {"  a\tb \n c ", {"a", "b", "c"}},
      {"a'b c'd", {"ab cd"}},
      {R"("a \" b" '\n')", {"a \" b", "\\n"}},
      {R"("\a\$\\")", {R"(\a$\)"}},
      {R"(a\ b \'c)", {"a b", "'c"}},
      {"'' \"\"", {"", ""}},
  };
  for (const auto& [line, words] : table) {
    Result<Words> split = split_shell_words(line);
    ASSERT_TRUE(split.has_value()) << line;
    EXPECT_EQ(*split, words) << line;
  }
  EXPECT_EQ(split_shell_words("a 'b").error().message(), "has an unbalanced '");
  EXPECT_EQ(split_shell_words("a \"b\\\"").error().message(), "has an unbalanced \"");
  EXPECT_EQ(split_shell_words("a\\").error().message(), "ends in a backslash");
}

}  // namespace
}  // namespace einhorn::master
