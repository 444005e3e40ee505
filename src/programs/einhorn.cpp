// einhorn: reads the command line and becomes the guard; or, started by one, the master.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "capture/reader.h"
#include "intercept/supervisor.h"
#include "master/boot.h"
#include "master/configure.h"
#include "master/from_ruby.h"
#include "master/master.h"
#include "master/options.h"
#include "master/print_config.h"
#include "os/linux/linux_kernel.h"
#include "os/parent_state.h"
#include "os/state_files.h"
#include "probe/prober.h"
#include "programs/daemonize.h"
#include "programs/guard_process.h"
#include "programs/title.h"
#include "programs/up.h"

namespace {

using einhorn::Error;
using einhorn::Result;
using einhorn::master::Options;

// Descriptors with fixed numbers lie below, and some more have to be opened beside them.
constexpr rlim_t kLeastDescriptors = 256;
constexpr auto kHandOverPatience = std::chrono::seconds{10};

int complain(const Error& error) {
  std::fprintf(stderr, "einhorn: %s\n", error.message().c_str());
  return 1;
}

// All but those that say that this process itself is broken.
void block_signals() {
  sigset_t blocked;
  sigfillset(&blocked);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
    sigdelset(&blocked, number);
  }
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
}

int run_master(int control, std::vector<std::string> environment, einhorn::Title& title) {
  fcntl(control, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_NAME, "einhorn");
  Result<std::unique_ptr<einhorn::os::LinuxKernel>> kernel = einhorn::os::LinuxKernel::create();
  if (!kernel) {
    return complain(kernel.error());
  }
  Result<std::unique_ptr<einhorn::master::Master>> master = einhorn::master::Master::create(
      **kernel, control, kHandOverPatience, std::move(environment),
      [](const std::vector<std::string>& words) { return einhorn::master::configure(words); });
  if (!master) {
    return complain(master.error());
  }
  title.set("einhorn-master: " + (*master)->title());
  while ((*master)->turn()) {
  }
  return 0;
}

// `detach`: what is done as soon as nothing can go wrong any more that somebody should read.
int run_new_pool(Options options, const einhorn::Birth& birth, const std::string& script,
                 einhorn::Title& title, const std::function<void()>& detach) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max < kLeastDescriptors) {
    return complain(einhorn::make_error(
        "open files", "the hard limit (RLIMIT_NOFILE) is " + std::to_string(limit.rlim_max) +
                          ", at least " + std::to_string(kLeastDescriptors) + " are needed"));
  }
  if (access("/proc/self/exe", F_OK) != 0) {
    return complain(Error{errno, "open /proc/self/exe",
                          "workers and masters are started by way of it; is /proc mounted?"});
  }
  Result<einhorn::master::Boot> boot =
      einhorn::master::boot(std::move(options), birth.environment, script);
  if (!boot) {
    return complain(boot.error());
  }
  detach();
  return einhorn::run_guard(std::move(*boot), nullptr, birth, title);
}

int run_new_pool(const Options& options, const einhorn::Birth& birth, const std::string& script,
                 einhorn::Title& title) {
  if (!options.daemonize) {
    return run_new_pool(options, birth, script, title, [] {});
  }
  return einhorn::daemonize(options, [&](const std::function<void()>& detach) {
    return run_new_pool(options, birth, script, title, detach);
  });
}

// --with-state-fd: what is behind the descriptor says who we are. A socket: a guard has started us
// as its master. A file that a guard wrote: we are that guard, renewed. Anything else: a Ruby
// master has executed us in its place.
int run_with_state(int fd, const einhorn::Birth& birth, const std::string& script,
                   einhorn::Title& title) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return complain(Error{errno, "--with-state-fd " + std::to_string(fd),
                          "this option is for Einhorn's own use"});
  }
  // What is in there says which programs are run, and with which descriptors.
  if (status.st_uid != geteuid() && status.st_uid != 0) {
    return complain(einhorn::make_error("--with-state-fd " + std::to_string(fd),
                                        "it belongs to user " + std::to_string(status.st_uid) +
                                            "; this option is for Einhorn's own use"));
  }
  if (S_ISSOCK(status.st_mode)) {
    return run_master(fd, birth.environment, title);
  }
  Result<std::string> text = einhorn::os::read_to_end(fd);
  if (!text) {
    return complain(text.error());
  }
  if (text->starts_with("einhorn-guard ")) {
    einhorn::guard::Renewal renewal;
    Result<einhorn::master::Boot> boot = einhorn::read_renewal(*text, renewal);
    return boot ? einhorn::run_guard(std::move(*boot), &renewal, birth, title)
                : complain(boot.error());
  }
  Result<einhorn::master::Boot> boot =
      einhorn::master::boot_from_ruby(*text, birth.environment, script);
  return boot ? einhorn::run_guard(std::move(*boot), nullptr, birth, title)
              : complain(boot.error());
}

int complain(const std::vector<Error>& errors) {
  for (const Error& error : errors) {
    complain(error);
  }
  return 1;
}

// --check-config and --print-config: of a file with several pools each one, unless --pool names it.
int show_config(const einhorn::master::Configuration& whole,
                const std::vector<std::string>& arguments) {
  using einhorn::master::Configuration;
  const bool is_check = whole.options.mode == Options::Mode::kCheckConfig;
  std::vector<Configuration> parts;
  if (whole.options.pool.empty() && !whole.pools.empty()) {
    for (const std::string& pool : whole.pools) {
      std::vector<std::string> words = {"--pool", pool};
      words.insert(words.end(), arguments.begin(), arguments.end());
      parts.push_back(einhorn::master::configure(words));
    }
  } else {
    parts.push_back(whole);
  }
  for (const Configuration& part : parts) {
    if (!part.errors.empty()) {
      return complain(part.errors);
    }
    if (is_check && !part.options.config_path.empty() && part.options.command.empty()) {
      return complain(einhorn::make_error(
          part.options.config_path,
          (part.options.pool.empty() ? "it" : "pool '" + part.options.pool + "'") +
              std::string(" names no program: `command` is missing")));
    }
  }
  if (is_check) {
    std::printf("%s: OK\n",
                whole.options.config_path.empty() ? "options" : whole.options.config_path.c_str());
    return 0;
  }
  for (const Configuration& part : parts) {
    if (parts.size() > 1) {
      std::printf("# pool %s\n", part.options.pool.c_str());
    }
    std::fputs(einhorn::master::print_config(part).c_str(), stdout);
  }
  return 0;
}

// A Ruby master that asks has its state ready: one that could not be taken over is refused while
// nothing has happened yet.
int check_upgrade() {
  if (const std::optional<std::string> state = einhorn::os::peek_parent_state()) {
    if (const einhorn::Status usable = einhorn::master::check_ruby_state(*state); !usable) {
      return complain(usable.error());
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv, char** envp) {
  // First of all, so that nothing half done is left behind by a signal: the guard takes them in,
  // and the master is not the process to talk to.
  block_signals();
  einhorn::os::open_standard_descriptors();
  if (einhorn::os::is_set_user_id()) {
    return complain(einhorn::make_error(
        "Einhorn runs programs that whoever starts it names, so it does not run set-user-ID or "
        "set-group-ID",
        "chmod ug-s " + std::string(argc > 0 ? argv[0] : "einhorn")));
  }
  signal(SIGPIPE, SIG_IGN);  // nobody who stops reading our log stops us
  signal(SIGCHLD, SIG_DFL);  // inherited as ignored it would lose how children end
  const std::vector<std::string> arguments(argv, argv + argc);
  einhorn::Birth birth;
  for (char** variable = envp; *variable != nullptr; ++variable) {
    birth.environment.emplace_back(*variable);
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    birth.soft_descriptors = limit.rlim_cur;
  }
  const std::vector<std::string> words(arguments.begin() + 1, arguments.end());
  einhorn::master::Configuration configuration = einhorn::master::configure(words);
  Options* const options = &configuration.options;
  if (einhorn::wants_up(configuration)) {
    return einhorn::run_up(arguments.at(0), words);
  }
  if (!configuration.errors.empty()) {
    return complain(configuration.errors);
  }
  einhorn::Title title(argc, argv);
  switch (options->mode) {
    case Options::Mode::kHelp:
      std::fputs(einhorn::master::usage(true).c_str(), stdout);
      return 1;
    case Options::Mode::kUsage:
      std::fputs(einhorn::master::usage(false).c_str(), stdout);
      return 1;
    case Options::Mode::kVersion:
      std::puts(EINHORN_VERSION);
      return 0;
    case Options::Mode::kConfigSchema:
      std::fputs(einhorn::master::config_schema().c_str(), stdout);
      return 0;
    case Options::Mode::kCheckConfig:
    case Options::Mode::kPrintConfig:
      return show_config(configuration, words);
    case Options::Mode::kUpgradeCheck:
      return check_upgrade();
    case Options::Mode::kWatch:
      title.set("einhorn-intercept: " + (options->command.empty() ? "" : options->command[0]));
      return einhorn::intercept::run_supervisor(options->state_fd);
    case Options::Mode::kRead:
      title.set("einhorn-capture: " + (options->command.empty() ? "" : options->command[0]));
      return einhorn::capture::run_reader(options->state_fd);
    case Options::Mode::kProbe:
      title.set("einhorn-probe: " + (options->command.empty() ? "" : options->command[0]));
      return einhorn::probe::run_prober(options->state_fd);
    case Options::Mode::kMaster:
      return run_with_state(options->state_fd, birth, arguments.at(0), title);
    case Options::Mode::kRun:
      return run_new_pool(*options, birth, arguments.at(0), title);
  }
  return 1;
}
