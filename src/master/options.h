// The command line of `einhorn`.
//
// One table lists every option: its names, its argument, its text for --help, and what it sets. The
// parser is glibc's getopt_long: options stop at the first word that is none, or at `--`; `-n3`,
// `--number=3`, `--number 3` and unique abbreviations are understood, as by Ruby's OptionParser.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "os/bind_spec.h"
#include "pool/config.h"
#include "wire/snapshot.h"

namespace einhorn::master {

struct Options {
  enum class Mode {
    kRun,           // start a pool
    kHelp,          // -h: long usage on standard output, exit 1 (as upstream)
    kUsage,         // no program given: short usage on standard output, exit 1
    kVersion,       // --version: exit 0
    kUpgradeCheck,  // --upgrade-check: exit 0 if what is behind it makes sense
    kMaster,        // --with-state-fd: take over from another master
    kWatch,         // --intercept-fd: be the supervisor of intercepted programs
  };
  Mode mode = Mode::kRun;
  // Paths as given, in `..._path` as in `..._given`, empty where nothing was; max_unacked is 0 when
  // not given: boot fills in the defaults.
  wire::Settings settings;
  pool::Config config;
  std::vector<os::BindSpec> binds;
  std::vector<std::string> command;  // the program and its arguments
  int state_fd = -1;                 // kMaster, kWatch
  // How programs are to be intercepted, if at all; boot finds out what is possible here.
  enum class Intercept { kOff, kAuto, kSeccomp };
  Intercept intercept = Intercept::kOff;
  bool ack_mode_given = false;
  bool stop_signal_given = false;
};

// `arguments` comes without the program's own name. Options act in their order: after -h, --version
// or --upgrade-check nothing else is looked at. With --with-state-fd the command may be empty.
// Not to be called by two threads at a time: getopt_long's state is global.
// Errors are one line: which option, what was wrong with its value, what is allowed.
[[nodiscard]] Result<Options> parse_options(const std::vector<std::string>& arguments);

// The text of -h (long) or of a call without a program (short).
[[nodiscard]] std::string usage(bool is_long);

}  // namespace einhorn::master
