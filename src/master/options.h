// The command line of `einhorn`.
//
// One table lists every option: its names, its argument, its text for --help, and what it sets. The
// parser is glibc's getopt_long: options stop at the first word that is none, or at `--`; `-n3`,
// `--number=3`, `--number 3` and unique abbreviations are understood, as by Ruby's OptionParser.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/result.h"
#include "os/bind_spec.h"
#include "pool/config.h"
#include "wire/snapshot.h"

namespace einhorn::master {

struct OptionRule;

struct Options {
  enum class Mode {
    kRun,           // start a pool
    kHelp,          // -h: long usage on standard output, exit 1 (as upstream)
    kUsage,         // no program given: short usage on standard output, exit 1
    kVersion,       // --version: exit 0
    kCheckConfig,   // --check-config: exit 0 if all is right
    kPrintConfig,   // --print-config
    kConfigSchema,  // --config-schema
    kUpgradeCheck,  // --upgrade-check: exit 0 if what is behind it makes sense
    kMaster,        // --with-state-fd: take over from another master
    kWatch,         // --intercept-fd: be the supervisor of intercepted programs
    kRead,          // --capture-fd: be the reader of workers' output
    kProbe,         // --probe-fd: be the prober
  };
  Mode mode = Mode::kRun;
  // Paths as given, in `..._path` as in `..._given`, empty where nothing was; max_unacked is 0 when
  // not given: boot fills in the defaults.
  wire::Settings settings;
  pool::Config config;
  std::vector<os::BindSpec> binds;
  std::vector<std::string> command;  // the program and its arguments
  int state_fd = -1;                 // kMaster, kWatch, kRead
  // How programs are to be intercepted, if at all; boot finds out what is possible here.
  enum class Intercept { kOff, kAuto, kSeccomp, kPreload };
  Intercept intercept = Intercept::kOff;
  bool ack_mode_given = false;
  bool stop_signal_given = false;
  std::string config_path;             // --config; "" none
  std::string pool;                    // --pool; "" none
  std::vector<std::string> env;        // --env, as NAME=VALUE
  std::vector<std::string> env_files;  // --env-file
  // As given; boot looks them up (master/privileges.h).
  std::string user;                 // --user
  std::vector<std::string> groups;  // --group, the first one is the worker's own
  std::string master_user;          // --master-user
  std::string cpu_affinity;         // --cpu-affinity
  bool socket_mode_given = false;
  bool daemonize = false;
  // Hooks as given, in the order of pool::Hook; "" none.
  std::array<std::string, pool::kHooks.size() + 1> hooks;
  bool hook_shell = false;
  // What the command line said, in its order.
  struct Given {
    const OptionRule* rule = nullptr;
    std::string value;
  };
  std::vector<Given> given;
  bool number_given = false;
};

// `arguments` comes without the program's own name. Options act in their order: after -h, --version
// or --upgrade-check nothing else is looked at. With --with-state-fd the command may be empty.
// Not to be called by two threads at a time: getopt_long's state is global.
// Errors are one line: which option, what was wrong with its value, what is allowed.
[[nodiscard]] Result<Options> parse_options(const std::vector<std::string>& arguments);

// The same without what one option means for others, which complete_options adds: for who adds to
// the options in between (master/configure.h).
[[nodiscard]] Result<Options> read_options(const std::vector<std::string>& arguments);
[[nodiscard]] Status complete_options(Options& options);

// Options act in their order, and after one with such a mode nothing else counts.
[[nodiscard]] bool is_final(Options::Mode mode);

// Notes one option's value. `value` is null where there is none. Errors name the option.
[[nodiscard]] Status apply_option(const OptionRule& rule, const char* value, Options& options);

// The text of -h (long) or of a call without a program (short).
[[nodiscard]] std::string usage(bool is_long);

}  // namespace einhorn::master
