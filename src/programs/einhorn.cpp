// einhorn: reads the command line and becomes the guard; or, started by one, the master.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "guard/guard.h"
#include "master/boot.h"
#include "master/master.h"
#include "master/options.h"
#include "os/linux/linux_kernel.h"
#include "os/state_files.h"
#include "programs/title.h"

namespace {

using einhorn::Error;
using einhorn::Result;
using einhorn::master::Options;

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

void copy_path(std::span<char> into, const std::string& path) {
  if (path.size() < into.size()) {
    std::memcpy(into.data(), path.data(), path.size() + 1);
  }
}

// The words that a master of this guard is started with.
std::vector<std::string> master_arguments(const einhorn::wire::Settings& settings, int control) {
  std::vector<std::string> arguments = {settings.script, "--with-state-fd",
                                        std::to_string(control), "--"};
  arguments.insert(arguments.end(), settings.original_command.begin(),
                   settings.original_command.end());
  return arguments;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

int run_guard(Options options, std::vector<std::string> environment, const std::string& script,
              einhorn::Title& title) {
  // Signals wait until the guard handles them: nothing half done is left behind.
  block_signals();
  const std::string command_name = options.settings.name;
  std::string shown;
  for (const std::string& word : options.command) {
    shown += (shown.empty() ? "" : " ") + word;
  }
  Result<einhorn::master::Boot> boot =
      einhorn::master::boot(std::move(options), std::move(environment), script);
  if (!boot) {
    return complain(boot.error());
  }
  const einhorn::wire::Settings& settings = boot->settings;
  auto plan = std::make_unique<einhorn::guard::Plan>();
  plan->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
  if (plan->program < 0) {
    return complain(Error{errno, "open /proc/self/exe", ""});
  }
  plan->control = settings.control;
  std::vector<std::string> arguments = master_arguments(settings, plan->control);
  std::vector<std::string> master_environment = settings.start_environment;
  std::vector<char*> argv = pointers(arguments);
  std::vector<char*> envp = pointers(master_environment);
  plan->arguments = argv.data();
  plan->environment = envp.data();
  copy_path(plan->pidfile, settings.pidfile);
  if (const char* manager = std::getenv("NOTIFY_SOCKET")) {
    copy_path(plan->notify_socket, manager);
  }
  for (const einhorn::wire::OwnFile& file : settings.files) {
    if (plan->file_count < plan->files.size()) {
      einhorn::guard::OwnFile& kept = plan->files[plan->file_count++];
      copy_path(kept.path, file.path);
      kept.device = file.device;
      kept.inode = file.inode;
    }
  }
  plan->predecessor = boot->predecessor.release();
  auto guard = std::make_unique<einhorn::guard::Guard>(*plan);
  for (auto& [name, fd] : boot->descriptors) {
    guard->store(fd.release(), name);
  }
  title.set("einhorn: " + (command_name.empty() ? shown : command_name));
  return guard->run();
}

int run_master(int control, std::vector<std::string> environment, einhorn::Title& title) {
  struct stat status {};
  if (fstat(control, &status) != 0 || !S_ISSOCK(status.st_mode)) {
    return complain(einhorn::make_error(
        "--with-state-fd " + std::to_string(control),
        "there is no guard at that descriptor; this option is for Einhorn's own use"));
  }
  fcntl(control, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_NAME, "einhorn");
  // Whatever it is sent directly: the guard is the process to talk to.
  block_signals();
  Result<std::unique_ptr<einhorn::os::LinuxKernel>> kernel = einhorn::os::LinuxKernel::create();
  if (!kernel) {
    return complain(kernel.error());
  }
  Result<std::unique_ptr<einhorn::master::Master>> master =
      einhorn::master::Master::create(**kernel, control, kHandOverPatience,
                                      std::move(environment));
  if (!master) {
    return complain(master.error());
  }
  title.set("einhorn-master: " + (*master)->title());
  while ((*master)->turn()) {
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv, char** envp) {
  einhorn::os::open_standard_descriptors();
  signal(SIGPIPE, SIG_IGN);  // nobody who stops reading our log stops us
  signal(SIGCHLD, SIG_DFL);  // inherited as ignored it would lose how children end
  const std::vector<std::string> arguments(argv, argv + argc);
  std::vector<std::string> environment;
  for (char** variable = envp; *variable != nullptr; ++variable) {
    environment.emplace_back(*variable);
  }
  Result<Options> options = einhorn::master::parse_options({arguments.begin() + 1, arguments.end()});
  if (!options) {
    return complain(options.error());
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
    case Options::Mode::kUpgradeCheck:
      return 0;
    case Options::Mode::kMaster:
      return run_master(options->state_fd, std::move(environment), title);
    case Options::Mode::kRun:
      return run_guard(std::move(*options), std::move(environment), arguments.at(0), title);
  }
  return 1;
}
