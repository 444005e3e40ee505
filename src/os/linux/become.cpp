#include "os/become.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::os {
namespace {

constexpr int kPatienceMs = 5000;
constexpr int kOutOfTheWay = 256;  // no socket of a worker has such a number

void end_master(pid_t master, int control) {
  constexpr char kLeave[] = "X_EINHORN_LEAVE=1";
  ::send(control, kLeave, sizeof(kLeave) - 1, MSG_NOSIGNAL);
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, master, 0)));
  pollfd waiting{pidfd.get(), POLLIN, 0};
  if (retry([&] { return ::poll(&waiting, 1, kPatienceMs); }) != 1) {
    kill(master, SIGKILL);  // our child, not reaped: the pid is its own
  }
  siginfo_t info{};
  retry([&] { return waitid(P_PID, static_cast<id_t>(master), &info, WEXITED); });
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
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

Status become(const Becoming& becoming, pid_t master, int control) {
  end_master(master, control);
  const int state = memfd_create("einhorn-state", 0);
  if (state < 0) {
    return Error{errno, "memfd_create", ""};
  }
  UniqueFd state_fd(fcntl(state, F_DUPFD, kOutOfTheWay));
  close_descriptor(state);
  std::size_t done = 0;
  while (done < becoming.state.size()) {
    const ssize_t count = retry([&] {
      return ::write(state_fd.get(), becoming.state.data() + done, becoming.state.size() - done);
    });
    if (count <= 0) {
      return Error{errno, "write the state", ""};
    }
    done += static_cast<std::size_t>(count);
  }
  lseek(state_fd.get(), 0, SEEK_SET);
  // Sources first out of the way of the numbers that are wanted.
  std::vector<DescriptorMove> moves = becoming.moves;
  for (DescriptorMove& move : moves) {
    move.from = fcntl(move.from, F_DUPFD_CLOEXEC, kOutOfTheWay);
  }
  for (const int fd : becoming.kept) {
    for (const DescriptorMove& move : moves) {
      if (fd == move.to) {
        return make_error("descriptor " + std::to_string(fd), "it is in the way of a socket");
      }
    }
  }
  for (const DescriptorMove& move : moves) {
    if (dup2(move.from, move.to) < 0) {
      return Error{errno, "dup2", ""};
    }
  }
  for (const int fd : becoming.kept) {
    fcntl(fd, F_SETFD, 0);
  }
  std::vector<std::string> arguments = becoming.arguments;
  arguments.insert(arguments.end(), {"--with-state-fd", std::to_string(state_fd.get()), "--"});
  arguments.insert(arguments.end(), becoming.command.begin(), becoming.command.end());
  std::vector<std::string> environment = becoming.environment;
  std::vector<char*> argv = pointers(arguments);
  std::vector<char*> envp = pointers(environment);
  unlink(becoming.remove.c_str());
  prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
  default_signals();
  execvpe(argv[0], argv.data(), envp.data());
  return Error{errno, "exec " + arguments[0], ""};
}

}  // namespace einhorn::os
