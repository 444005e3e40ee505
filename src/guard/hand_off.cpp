// From one master to the next, and from one program of the guard to the next.
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "guard/guard.h"
#include "guard/messages.h"

namespace einhorn::guard {

// How many of the message's descriptors are kept: the first `kept` were before this.
std::size_t Guard::on_hand_off_message(Child& from, const Message& message, std::size_t kept) {
  const std::string_view text(message.text.data(), message.length);
  int number = 0;
  if (&from == &master_ && to_int(value_of(text, "X_EINHORN_SUCCESSOR"), &number) &&
      message.fd_count == 1 && successor_.pid < 0) {
    Death death;
    const Look look = system_.look_at(number, death);
    // One that is no child of ours any more died before we knew what it was, and was reaped as
    // anybody. The master was told of its end then: a THAW now could hit its next hand-off.
    if (number > 0 && look != Look::kNoChild) {
      system_.set_nonblocking(message.fds[0]);
      successor_ = Child{number, message.fds[0], false, false, system_.now_ns()};
      handed_ = false;
      kept = 1;
      if (look == Look::kDead) {
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
  if (&from == &master_ && message.fd_count == 1 && kept == 0 &&
      to_int(value_of(text, "X_EINHORN_RENEW"), &number)) {
    renew(message.fds[0], number);
  }
  if (&from == &master_ && frozen_ && value_of(text, "X_EINHORN_FROZEN") == "1") {
    handed_ = send_descriptors(successor_, "X_EINHORN_GO=2");
    if (!handed_) {
      say("ERROR: can't hand the descriptors to master %d", successor_.pid);
      system_.kill(successor_.pid);
    }
  }
  return kept;
}

void Guard::adopt(pid_t master, int control, std::uint64_t signals) {
  pending_signals_ = signals;
  system_.set_inherited(control, false);
  master_ = Child{master, control, true, true, system_.now_ns()};
  was_ready_ = true;
  sweep_at_ns_ = system_.now_ns();
}

// Whether what is kept goes on to the program that we become.
void Guard::set_inherited(bool inherited) {
  for (const Stored& entry : stored()) {
    system_.set_inherited(entry.fd, inherited);
  }
  system_.set_inherited(master_.control, inherited);
}

// What guard/renewal.h reads. An errno; 0: done.
int Guard::write_state(int state, int how) {
  std::array<char, kNameBytes + 64> line;
  int error = 0;
  const auto put = [&](int length) {
    if (error == 0) {
      error = system_.write_state(state, {line.data(), static_cast<std::size_t>(length)});
    }
  };
  put(std::snprintf(line.data(), line.size(), "einhorn-guard 1\nhow %d\nmaster %d %d\n", how,
                    master_.pid, master_.control));
  put(std::snprintf(line.data(), line.size(), "signals %llu\n",
                    static_cast<unsigned long long>(pending_signals_ | told_signals_)));
  for (const Stored& entry : stored()) {
    put(std::snprintf(line.data(), line.size(), "fd %d %s\n", entry.fd, entry.name.data()));
  }
  return error;
}

// Returns only if it could not be done.
void Guard::renew(int program, int how) {
  const int state = successor_.pid < 0 ? system_.create_state() : -1;
  if (state < 0) {
    say("ERROR: can't renew the guard: %s",
        successor_.pid < 0 ? strerrordesc_np(errno) : "a hand-off is under way");
    return;
  }
  int error = write_state(state, how);
  if (error == 0) {
    set_inherited(true);
    error = system_.execute(program, state);
    set_inherited(false);
  }
  say("ERROR: can't renew the guard: %s", strerrordesc_np(error));
  tell_master("X_EINHORN_THAW=1");
  system_.close(state);
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
    if (predecessor_ >= 0) {
      system_.send(predecessor_, "X_EINHORN_LEAVE=1\n", {});
      system_.close(std::exchange(predecessor_, -1));
      system_.write_pid_file();
    }
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

}  // namespace einhorn::guard
