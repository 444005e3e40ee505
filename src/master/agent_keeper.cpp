#include "master/agent_keeper.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kProgram = "einhorn-agent";

}  // namespace

Result<std::string> find_agent(os::Kernel& kernel, const std::vector<std::string>& environment) {
  Result<std::string> directory = kernel.own_program_directory();
  if (directory) {
    const std::string beside = *directory + "/" + std::string(kProgram);
    if (Result<std::string> found = kernel.find_program(beside, "", "/")) {
      return found;
    }
  }
  std::string path;
  for (const std::string& variable : environment) {
    if (variable.starts_with("PATH=")) {
      path = variable.substr(5);
    }
  }
  Result<std::string> found = kernel.find_program(std::string(kProgram), path, "");
  if (found) {
    return found;
  }
  return make_error("--agent", "there is no einhorn-agent beside einhorn (" +
                                   (directory ? *directory : std::string("nobody knows where")) +
                                   "), and none in PATH");
}

AgentKeeper::AgentKeeper(os::Kernel& kernel, GuardLink& guard, Log& log,
                         const wire::Settings& settings, std::function<void(Pid)> started)
    : kernel_(kernel),
      settings_(settings),
      agent_(kernel, guard, log, settings,
             {.name = "agent",
              .token = Companion::kAgentToken,
              .failed_event = "agent_failed",
              .restart_event = "agent_restart",
              .what = "einhorn-agent",
              .meanwhile = "The pool does not need it."},
             {.program = [this] { return program(); },
              .born = [] {},
              .said =
                  [this](const os::Message& message) {
                    for (const int fd : message.fds) {
                      kernel_.close(fd);
                    }
                  },
              .started = std::move(started)}) {}

os::SpawnSpec AgentKeeper::program() const {
  os::SpawnSpec spec;
  const Result<std::string> found = find_agent(kernel_, settings_.start_environment);
  spec.program = found ? *found : std::string(kProgram);  // which fails, and says so
  spec.arguments = {std::string(kProgram), "--companion", std::to_string(settings_.control),
                    "--listen", settings_.agent};
  spec.arguments.insert(spec.arguments.end(), settings_.agent_arguments.begin(),
                        settings_.agent_arguments.end());
  spec.arguments.insert(spec.arguments.end(), {"--socket-path", settings_.socket_path});
  spec.environment = settings_.start_environment;
  // It talks to whoever comes: no rights beyond those of its user.
  spec.identity.no_new_privs = true;
  spec.identity.capabilities = 0;
  return spec;
}

}  // namespace einhorn::master
