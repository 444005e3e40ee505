#include "shell/agent_history.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "client/socket_paths.h"
#include "os/c_strings.h"
#include "os/intercept.h"
#include "shell/output.h"

namespace einhorn::shell {
namespace {

constexpr int kNoProgram = 127;

}  // namespace

std::vector<std::string> history_words(const std::string& socket_path,
                                       const std::vector<std::string>& args) {
  std::vector<std::string> words = {"einhorn-agent", "--socket-path", socket_path, "history"};
  words.insert(words.end(), args.begin(), args.end());
  int plain = 0;  // words that are no options: which history, and a pool
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (!args[i].starts_with("-")) {
      ++plain;
    } else if (args[i] == "--since" || args[i] == "--limit" || args[i] == "--history") {
      ++i;
    }
  }
  if (plain == 1) {
    words.push_back(client::pool_name(socket_path));
  }
  return words;
}

int run_history(const std::string& socket_path, const std::vector<std::string>& args) {
  std::vector<std::string> words = history_words(socket_path, args);
  const std::vector<char*> pointers = os::c_strings(words);
  const std::string beside = os::own_program_directory() + "/einhorn-agent";
  pid_t pid = 0;
  int failed = ::posix_spawn(&pid, beside.c_str(), nullptr, nullptr, pointers.data(), environ);
  if (failed == ENOENT) {
    failed = ::posix_spawnp(&pid, "einhorn-agent", nullptr, nullptr, pointers.data(), environ);
  }
  if (failed != 0) {
    [[maybe_unused]] const Status said =
        Output(STDERR_FILENO)
            .print(std::string("einhornsh: history: can't run einhorn-agent, which keeps it: ") +
                   std::strerror(failed));
    return kNoProgram;
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) {
      return 1;
    }
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace einhorn::shell
