// From one master to the next, and from one program of the guard to the next.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include "guard/guard.h"
#include "guard/messages.h"

namespace einhorn::guard {

void Guard::on_hand_off_message(Child& from, std::string_view text, const int* fds,
                                std::size_t fd_count, std::size_t* kept) {
  int number = 0;
  if (&from == &master_ && to_int(value_of(text, "X_EINHORN_SUCCESSOR"), &number) &&
      fd_count == 1 && successor_.pid < 0) {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(number), &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
      // It died before we knew what it was, and was reaped as anybody: its pid is not its own now.
      tell_master("X_EINHORN_THAW=1");
    } else {
      fcntl(fds[0], F_SETFL, O_NONBLOCK);
      successor_ = Child{number, fds[0], false, false, now_ns()};
      *kept = 1;
      if (info.si_pid == number) {
        report_and_reap(number);
      }
    }
  }
  if (&from == &successor_ && value_of(text, "X_EINHORN_HELLO") == "1" && !frozen_) {
    // From here on nothing is said to the master but how this ends.
    if (tell_master("X_EINHORN_FREEZE=1")) {
      frozen_ = true;
      master_.ready = false;
    }
  }
  if (&from == &master_ && fd_count == 1 && *kept == 0 &&
      to_int(value_of(text, "X_EINHORN_RENEW"), &number)) {
    renew(fds[0], number);
  }
  if (&from == &master_ && frozen_ && value_of(text, "X_EINHORN_FROZEN") == "1" &&
      !send_descriptors(successor_, "X_EINHORN_GO=2")) {
    say("ERROR: can't hand the descriptors to master %d", successor_.pid);
    kill(successor_.pid, SIGKILL);
  }
}

void Guard::adopt(pid_t master, int control, std::uint64_t signals) {
  pending_signals_ = signals;
  fcntl(control, F_SETFD, FD_CLOEXEC);
  master_ = Child{master, control, true, true, now_ns()};
  was_ready_ = true;
  sweep_at_ns_ = now_ns();
}

// Whether what is kept goes on to the program that we become.
void Guard::set_inherited(bool inherited) {
  for (std::size_t i = 0; i < stored_count_; ++i) {
    fcntl(stored_[i].fd, F_SETFD, inherited ? 0 : FD_CLOEXEC);
  }
  fcntl(master_.control, F_SETFD, inherited ? 0 : FD_CLOEXEC);
}

// Returns only if it could not be done.
void Guard::renew(int program, int how) {
  const int state = successor_.pid < 0 ? memfd_create("einhorn-guard", 0) : -1;
  if (state < 0) {
    say("ERROR: can't renew the guard: %s",
        successor_.pid < 0 ? strerrordesc_np(errno) : "a hand-off is under way");
    return;
  }
  fchmod(state, S_IRUSR | S_IWUSR);
  std::array<char, kNameBytes + 64> line;
  const auto put = [&](int length) {
    return write(state, line.data(), static_cast<std::size_t>(length)) == length;
  };
  bool written =
      put(std::snprintf(line.data(), line.size(), "einhorn-guard 1\nhow %d\nmaster %d %d\n", how,
                        master_.pid, master_.control));
  const auto signals = static_cast<unsigned long long>(pending_signals_ | told_signals_);
  written = written && put(std::snprintf(line.data(), line.size(), "signals %llu\n", signals));
  for (std::size_t i = 0; i < stored_count_; ++i) {
    written = written && put(std::snprintf(line.data(), line.size(), "fd %d %s\n", stored_[i].fd,
                                           stored_[i].name.data()));
  }
  std::array<char, 16> number;
  std::snprintf(number.data(), number.size(), "%d", state);
  char* const before = std::exchange(plan_.arguments[2], number.data());
  set_inherited(true);
  if (written) {
    const std::uint64_t raised = set_soft_descriptors(plan_.soft_descriptors);
    syscall(SYS_execveat, program, "", plan_.arguments, plan_.environment, AT_EMPTY_PATH);
    const int error = errno;
    set_soft_descriptors(raised);
    errno = error;
  }
  say("ERROR: can't renew the guard: %s", strerrordesc_np(errno));
  tell_master("X_EINHORN_THAW=1");
  set_inherited(false);
  plan_.arguments[2] = before;
  close(state);
}

void Guard::on_ready(Child& from) {
  if (&from == &successor_) {
    tell_master("X_EINHORN_LEAVE=1");
    close_control(master_);
    master_ = successor_;
    successor_ = Child{};
    frozen_ = false;
    failures_ = 0;
  }
  master_.ready = true;
  master_.was_ready = true;
  if (!was_ready_) {
    was_ready_ = true;
    if (plan_.predecessor >= 0) {
      send(plan_.predecessor, "X_EINHORN_LEAVE=1\n", 18, MSG_NOSIGNAL);
      close(plan_.predecessor);
      plan_.predecessor = -1;
      write_pidfile();
    }
    tell_manager("READY=1");
  }
  forward_signals();
  sweep();
}

void Guard::on_successor_gone() {
  close_control(successor_);
  successor_ = Child{};
  if (std::exchange(frozen_, false)) {
    master_.ready = true;
  }
  if (tell_master("X_EINHORN_THAW=1")) {
    forward_signals();
    sweep();
  }
}

bool Guard::tell_master(const char* text) {
  return master_.control >= 0 && send(master_.control, text, std::strlen(text), MSG_NOSIGNAL) > 0;
}

}  // namespace einhorn::guard
