#include "os/become.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "os/c_strings.h"
#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::os {
namespace {

constexpr int kPatienceMs = 5000;

void end_master(pid_t master, int control) {
  tell(control, "X_EINHORN_LEAVE=1");
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, master, 0)));
  pollfd waiting{pidfd.get(), POLLIN, 0};
  if (retry([&] { return ::poll(&waiting, 1, kPatienceMs); }) != 1) {
    kill(master, SIGKILL);  // our child, not reaped: the pid is its own
  }
  siginfo_t info{};
  retry([&] { return waitid(P_PID, static_cast<id_t>(master), &info, WEXITED); });
  close_descriptor(control);
}

// What the other one reads, inherited by it.
Result<UniqueFd> state_file(const Becoming& becoming) {
  const UniqueFd low(memfd_create("einhorn-state", MFD_CLOEXEC));
  UniqueFd file(low ? fcntl(low.get(), F_DUPFD, becoming.out_of_the_way) : -1);
  if (!file) {
    return Error{errno, "a file for the state", ""};
  }
  fchmod(file.get(), S_IRUSR | S_IWUSR);
  std::string_view rest = becoming.state;
  while (!rest.empty()) {
    const ssize_t count = retry([&] { return ::write(file.get(), rest.data(), rest.size()); });
    if (count <= 0) {
      return Error{errno, "write the state", ""};
    }
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
  lseek(file.get(), 0, SEEK_SET);
  return file;
}

// The sockets under the numbers that workers know; and everything that goes on, inheritable.
Status place_descriptors(const Becoming& becoming) {
  for (const DescriptorMove& move : becoming.moves) {
    if (dup2(move.from, move.to) < 0) {
      return Error{errno, "dup2", ""};
    }
  }
  for (const int fd : becoming.kept) {
    fcntl(fd, F_SETFD, 0);
  }
  return Ok{};
}

void take_descriptors_back(const Becoming& becoming) {
  for (const DescriptorMove& move : becoming.moves) {
    close_descriptor(move.to);
  }
  for (const int fd : becoming.kept) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
}

// Everything is blocked up to the exec, and a pending signal would end us as soon as nothing is. A
// wish for an upgrade is dropped, since one is being made; being told to stop is not.
bool told_to_stop() {
  sigset_t harmless;
  sigemptyset(&harmless);
  for (const int number : {SIGHUP, SIGALRM, SIGUSR1, SIGTTIN, SIGTTOU}) {
    sigaddset(&harmless, number);
  }
  const timespec at_once{};
  while (sigtimedwait(&harmless, nullptr, &at_once) > 0) {
  }
  sigset_t pending;
  sigpending(&pending);
  for (const int number : {SIGINT, SIGTERM, SIGQUIT, SIGUSR2}) {
    if (sigismember(&pending, number) == 1) {
      return true;
    }
  }
  return false;
}

void default_signals() {
  for (const int number : {SIGPIPE, SIGCHLD}) {
    signal(number, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace

void tell(int control, std::string_view text) {
  ::send(control, text.data(), text.size(), MSG_NOSIGNAL);
}

Error become(const Becoming& becoming, pid_t master, int control, MasterIs& left) {
  left = MasterIs::kThere;
  const Result<UniqueFd> state = state_file(becoming);
  if (!state) {
    return state.error();
  }
  std::vector<std::string> arguments = becoming.arguments;
  arguments.insert(arguments.end(), {"--with-state-fd", std::to_string(state->get()), "--"});
  arguments.insert(arguments.end(), becoming.command.begin(), becoming.command.end());
  std::vector<std::string> environment = becoming.environment;
  std::vector<char*> argv = c_strings(arguments);
  std::vector<char*> envp = c_strings(environment);
  Error stopping = make_error("exec " + arguments[0], "a signal says to stop");
  if (told_to_stop()) {
    return stopping;
  }
  end_master(master, control);
  left = MasterIs::kGone;
  Status placed = place_descriptors(becoming);
  Error failed = placed ? stopping : placed.error();
  if (placed && !told_to_stop()) {
    unlink(becoming.remove.c_str());
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
    default_signals();
    execvpe(argv[0], argv.data(), envp.data());
    failed = Error{errno, "exec " + arguments[0], ""};
  }
  take_descriptors_back(becoming);
  return failed;
}

}  // namespace einhorn::os
