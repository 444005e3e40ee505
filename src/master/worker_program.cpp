#include "master/worker_program.h"

#include <algorithm>
#include <string_view>

#include "master/configure.h"
#include "master/preload.h"
#include "master/privileges.h"

namespace einhorn::master {

std::string search_path(const std::vector<std::string>& environment) {
  for (const std::string& variable : environment) {
    if (variable.starts_with("PATH=")) {
      return variable.substr(5);
    }
  }
  return "/usr/local/bin:/usr/bin:/bin";
}

bool is_workers_own(std::string_view variable) {
  for (const std::string_view prefix : {"EINHORN_", "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=",
                                        "NOTIFY_SOCKET=", "WATCHDOG_PID=", "WATCHDOG_USEC="}) {
    if (variable.starts_with(prefix)) {
      return true;
    }
  }
  return false;
}

namespace {

// As a shell in that root would find it. A name with a slash is taken as it is: only in there can
// its links be followed, and the worker's start will tell.
Result<std::string> find_in_root(os::Kernel& kernel, const std::string& root,
                                 const std::string& name, const std::string& path) {
  if (name.find('/') != std::string::npos) {
    return name;
  }
  std::string_view rest = path;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    const std::string candidate = std::string(rest.substr(0, end)) + "/" + name;
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (candidate.starts_with('/') && kernel.find_program(root + candidate, "", "/")) {
      return candidate;
    }
  }
  return make_error("find program " + name, "it is in no directory of PATH in " + root);
}

}  // namespace

Result<wire::Program> find_worker_program(os::Kernel& kernel, const wire::Settings& settings,
                                          const std::vector<std::string>& environment,
                                          const std::string& directory) {
  wire::Program program;
  program.environment = with_variables(
      with_variables(environment, identity_variables(settings.privileges)), settings.variables);
  program.arguments = settings.original_command;
  const std::string path = search_path(program.environment);
  const std::string& root = settings.privileges.root;
  if (!root.empty()) {
    if (Status planned = plan_preload(kernel, settings, program); !planned) {
      return planned.error();  // they do not go together
    }
    program.directory = settings.directory.empty() ? "/" : settings.directory;
    if (Result<std::string> there = kernel.resolve_directory(root + "/" + program.directory);
        !there) {
      return there.error();
    }
    Result<std::string> found = find_in_root(kernel, root, program.arguments.at(0), path);
    if (!found) {
      return found.error();
    }
    program.path = *found;
    program.arguments[0] = *found;
    return program;
  }
  Result<std::string> resolved =
      kernel.resolve_directory(settings.directory.empty() ? directory : settings.directory);
  if (!resolved) {
    Error error = resolved.error();
    error.operation = (settings.directory.empty() ? "" : "--chdir: ") + error.operation;
    return error;
  }
  program.directory = *resolved;
  if (Status planned = plan_preload(kernel, settings, program); !planned) {
    return planned.error();
  }
  Result<std::string> found = kernel.find_program(program.arguments.at(0), path, program.directory);
  if (found) {
    program.path = pin_program(kernel, *found, program.directory);
    program.arguments[0] = *found;
  } else if (program.zygote.empty() || settings.preload_fallback) {
    return found.error();  // else the command only says how workers are called
  }
  return program;
}

std::string pin_program(os::Kernel& kernel, const std::string& path, const std::string& directory) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) {
    return path;
  }
  std::string folder = path.substr(0, slash);
  if (folder.empty() || folder[0] != '/') {
    folder = directory + "/" + folder;
  }
  Result<std::string> resolved = kernel.resolve_directory(folder);
  return resolved ? *resolved + path.substr(slash) : path;
}

}  // namespace einhorn::master
