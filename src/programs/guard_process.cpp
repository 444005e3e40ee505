#include "programs/guard_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "base/numbers.h"
#include "guard/guard.h"
#include "guard/linux_system.h"
#include "master/privileges.h"
#include "master/to_ruby.h"
#include "os/c_strings.h"
#include "os/linux/child_identity.h"
#include "os/linux/linux_kernel.h"

namespace einhorn {
namespace {

void copy_path(std::span<char> into, const std::string& path) {
  if (path.size() < into.size()) {
    std::memcpy(into.data(), path.data(), path.size() + 1);
  }
}

// The words that a master of this guard is started with.
std::vector<std::string> master_arguments(const wire::Settings& settings) {
  std::vector<std::string> arguments = {settings.script, "--with-state-fd",
                                        std::to_string(settings.control), "--"};
  arguments.insert(arguments.end(), settings.original_command.begin(),
                   settings.original_command.end());
  return arguments;
}

// How often our service manager wants to hear WATCHDOG=1; 0: not at all, or not from us.
std::int64_t watchdog_us() {
  const char* pid = std::getenv("WATCHDOG_PID");
  const char* interval = std::getenv("WATCHDOG_USEC");
  if (interval == nullptr || (pid != nullptr && number_of<pid_t>(pid) != getpid())) {
    return 0;
  }
  return std::max(std::int64_t{0}, number_of<std::int64_t>(interval));
}

std::string shown_name(const wire::Settings& settings) {
  if (!settings.name.empty()) {
    return "ruby " + settings.name;  // what tools that look through `ps` know
  }
  std::string shown;
  for (const std::string& word : settings.original_command) {
    shown += (shown.empty() ? "" : " ") + word;
  }
  return shown;
}

}  // namespace

int run_guard(master::Boot boot, const guard::Renewal* renewal, const Birth& birth, Title& title) {
  if (renewal != nullptr && renewal->how == 2 &&
      master::leave_to_ruby(boot, renewal->master, renewal->control) == os::MasterIs::kGone) {
    renewal = nullptr;  // it could not be done, and the master has left: start one again
  }
  const wire::Settings& settings = boot.settings;
  if (settings.preloads()) {
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);  // what a zygote forks becomes our child
  }
  auto plan = std::make_unique<guard::Plan>();
  plan->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
  if (plan->program < 0) {
    std::fprintf(stderr, "einhorn: open /proc/self/exe: %s\n", strerrordesc_np(errno));
    return 1;
  }
  plan->control = settings.control;
  plan->soft_descriptors = birth.soft_descriptors;
  std::vector<std::string> arguments = master_arguments(settings);
  std::vector<std::string> environment = settings.start_environment;
  std::vector<char*> argv = os::c_strings(arguments);
  std::vector<char*> envp = os::c_strings(environment);
  plan->arguments = argv.data();
  plan->environment = envp.data();
  copy_path(plan->pidfile, settings.pidfile);
  copy_path(plan->log_file, settings.log_file);
  plan->log_json = settings.log_json;
  if (const char* manager = std::getenv("NOTIFY_SOCKET")) {
    copy_path(plan->notify_socket, manager);
    plan->watchdog_us = watchdog_us();
  }
  for (const wire::OwnFile& file : settings.files) {
    if (plan->file_count < plan->files.size()) {
      guard::OwnFile& kept = plan->files[plan->file_count++];
      copy_path(kept.path, file.path);
      kept.device = file.device;
      kept.inode = file.inode;
    }
  }
  const os::Identity identity = master::master_identity(settings.privileges);
  const os::ChildIdentity child_identity(identity);
  if (identity != os::Identity{}) {
    plan->master_identity = &child_identity;
  }
  plan->capabilities = master::guard_capabilities(settings.privileges);
  auto system = std::make_unique<guard::LinuxSystem>(*plan);
  for (const std::string& name : boot.manager_forgets) {
    system->tell_manager("FDSTOREREMOVE=1\nFDNAME=" + name, {});
  }
  auto guard = std::make_unique<guard::Guard>(*system);
  if (boot.predecessor) {
    guard->succeed(boot.predecessor.release());
  }
  for (auto& [name, fd] : boot.descriptors) {
    guard->store(fd.release(), name);
  }
  if (renewal != nullptr) {
    guard->adopt(renewal->master, renewal->control, renewal->signals);
  }
  title.set("einhorn: " + shown_name(settings));
  return guard->run();
}

Result<master::Boot> read_renewal(std::string_view text, guard::Renewal& renewal) {
  master::Boot boot;
  bool found = false;
  renewal = guard::parse_renewal(text);
  for (const auto& [name, fd] : renewal.fds) {
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
      return make_error("renewed guard", "descriptor \"" + name + "\" did not come along");
    }
    boot.descriptors.emplace_back(name, os::UniqueFd(fd));
  }
  Result<std::unique_ptr<os::LinuxKernel>> kernel = os::LinuxKernel::create();
  if (!kernel) {
    return kernel.error();
  }
  for (const auto& [name, fd] : boot.descriptors) {
    if (name != "snapshot") {
      continue;
    }
    Result<std::string> bytes = (*kernel)->read_all(fd.get());
    if (!bytes) {
      return bytes.error();
    }
    Result<wire::Snapshot> snapshot = wire::decode_snapshot(*bytes);
    if (!snapshot) {
      return snapshot.error();
    }
    boot.settings = std::move(snapshot->settings);
    found = true;
  }
  if (!found || renewal.master <= 0) {
    return make_error("renewed guard", "there is no snapshot, or no master");
  }
  return boot;
}

}  // namespace einhorn
