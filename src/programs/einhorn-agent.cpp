// einhorn-agent: looks at running masters. See docs/agent.md.

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "agent/agent.h"

int main(int argc, char** argv) {
  // A closed standard descriptor would be given to the first socket or file that is opened.
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd) {
      return 1;
    }
  }
  if (::getuid() != ::geteuid() || ::getgid() != ::getegid()) {
    std::fputs("einhorn-agent: it does not run set-user-ID or set-group-ID\n", stderr);
    return 1;
  }
  std::signal(SIGPIPE, SIG_IGN);
  einhorn::agent::Invocation invocation;
  for (int index = 1; index < argc; ++index) {
    invocation.arguments.emplace_back(argv[index]);
  }
  invocation.environment = [](const char* name) { return std::getenv(name); };
  return einhorn::agent::run_agent(invocation);
}
