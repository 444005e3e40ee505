// einhornsh: the shell of an Einhorn master. See docs/einhornsh.md.

#include <fcntl.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>

#include "shell/shell.h"

namespace {

// A closed standard descriptor would be given to the first socket or file that is opened.
bool open_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd) {
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (!open_standard_descriptors()) {
    return 1;
  }
  if (::getuid() != ::geteuid() || ::getgid() != ::getegid()) {
    std::fputs("einhornsh: it does not run set-user-ID or set-group-ID\n", stderr);
    return 1;
  }
  std::setlocale(LC_CTYPE, "");
  einhorn::shell::Invocation invocation;
  for (int index = 1; index < argc; ++index) {
    invocation.arguments.emplace_back(argv[index]);
  }
  invocation.environment = [](const char* name) { return std::getenv(name); };
  return einhorn::shell::run_shell(invocation);
}
