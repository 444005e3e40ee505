#include "intercept/replace.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <optional>
#include <set>

#include "intercept/processes.h"

namespace einhorn::intercept {

#if defined(__x86_64__)
namespace {

// The first rounds of waiting take no time, the others a millisecond each.
constexpr int kHastyRounds = 100;
constexpr int kStopRounds = kHastyRounds + 500;
constexpr int kCallRounds = kHastyRounds + 2000;
constexpr std::size_t kMostThreads = 4096;
constexpr std::uint64_t kRedZone = 128;
constexpr int kIdleBacklog = 16;

void wait_a_moment(int round) {
  if (round < kHastyRounds) {
    sched_yield();
  } else {
    poll(nullptr, 0, 1);
  }
}

// Calls that wait for a datagram or for work: nothing is half done in them.
bool only_waits(std::uint64_t call) {
  switch (call) {
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_read:
    case SYS_poll:
    case SYS_ppoll:
    case SYS_select:
    case SYS_pselect6:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_futex:
    case SYS_wait4:
    case SYS_waitid:
    case SYS_pause:
    case SYS_rt_sigsuspend:
    case SYS_rt_sigtimedwait:
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_restart_syscall:
      return true;
    default:
      return false;
  }
}

// All threads of a process, stopped; they go on when it ends.
class Stopped {
 public:
  explicit Stopped(pid_t process) : process_(process) {}
  ~Stopped() {
    const std::set<pid_t> tasks = tasks_;
    for (const pid_t task : tasks) {
      // One that has not stopped yet would stay so for as long as we live.
      if (ptrace(PTRACE_DETACH, task, nullptr, nullptr) != 0 && wait_stopped(task)) {
        ptrace(PTRACE_DETACH, task, nullptr, nullptr);
      }
    }
  }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;

  // "" or why not.
  std::string stop_all() {
    // Threads that are being started by others come later.
    for (;;) {
      std::vector<pid_t> fresh;
      for (const pid_t task : tasks_of(process_)) {
        if (tasks_.contains(task) || gone_.contains(task)) {
          continue;
        }
        if (tasks_.size() >= kMostThreads) {
          return "it has too many threads";
        }
        if (ptrace(PTRACE_SEIZE, task, nullptr, nullptr) == 0) {
          ptrace(PTRACE_INTERRUPT, task, nullptr, nullptr);
          tasks_.insert(task);
          fresh.push_back(task);
        } else if (errno == ESRCH) {
          gone_.insert(task);
        } else {
          return std::string("ptrace: ") + strerrordesc_np(errno);
        }
      }
      if (fresh.empty()) {
        return tasks_.empty() ? "it is gone" : "";
      }
      for (const pid_t task : fresh) {
        if (!wait_stopped(task)) {
          return "it can't be stopped";
        }
      }
    }
  }

  [[nodiscard]] std::vector<pid_t> tasks() const { return {tasks_.begin(), tasks_.end()}; }

 private:
  // Signals that come before our stop does are passed on.
  bool wait_stopped(pid_t task) {
    for (int round = 0; round < kStopRounds;) {
      int status = 0;
      const pid_t found = waitpid(task, &status, __WALL | WNOHANG);
      if (found == 0) {
        wait_a_moment(round++);
        continue;
      }
      if (found < 0 || !WIFSTOPPED(status)) {
        tasks_.erase(task);
        gone_.insert(task);
        return true;
      }
      if (status >> 16 == PTRACE_EVENT_STOP) {
        return true;
      }
      ptrace(PTRACE_CONT, task, nullptr, WSTOPSIG(status));
    }
    return false;
  }

  pid_t process_;
  std::set<pid_t> tasks_;
  std::set<pid_t> gone_;
};

// One stopped thread that makes system calls for us.
class Borrowed {
 public:
  Borrowed(pid_t process, pid_t task) : process_(process), task_(task) {}
  ~Borrowed() {
    if (ready_) {
      write_memory(scratch_, saved_memory_.data(), saved_memory_.size());
      ptrace(PTRACE_SETREGS, task_, nullptr, &saved_);
      ptrace(kSetMask, task_, sizeof(mask_), &mask_);
    }
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

  bool prepare(std::uint64_t instruction) {
    instruction_ = instruction;
    if (ptrace(PTRACE_GETREGS, task_, nullptr, &saved_) != 0 ||
        ptrace(kGetMask, task_, sizeof(mask_), &mask_) != 0) {
      return false;
    }
    scratch_ = (saved_.rsp - kRedZone - saved_memory_.size()) & ~std::uint64_t{15};
    if (!read_memory(scratch_, saved_memory_.data(), saved_memory_.size())) {
      return false;
    }
    const std::uint64_t all = ~std::uint64_t{0};
    ready_ = ptrace(kSetMask, task_, sizeof(all), &all) == 0;
    return ready_;
  }

  // The result, or a negative errno.
  long call(long number, std::array<std::uint64_t, 3> arguments) {
    user_regs_struct registers = saved_;
    registers.rax = static_cast<std::uint64_t>(number);
    registers.orig_rax = ~std::uint64_t{0};
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.rip = instruction_;
    if (ptrace(PTRACE_SETREGS, task_, nullptr, &registers) != 0 ||
        ptrace(PTRACE_SINGLESTEP, task_, nullptr, nullptr) != 0) {
      return -ESRCH;
    }
    for (int round = 0; round < kCallRounds;) {
      int status = 0;
      const pid_t found = waitpid(task_, &status, __WALL | WNOHANG);
      if (found == 0) {
        wait_a_moment(round++);
        continue;
      }
      if (found < 0 || !WIFSTOPPED(status)) {
        ready_ = false;
        return -ESRCH;
      }
      if (WSTOPSIG(status) == SIGTRAP && status >> 16 == 0) {
        return ptrace(PTRACE_GETREGS, task_, nullptr, &registers) == 0
                   ? static_cast<long>(registers.rax)
                   : -ESRCH;
      }
      ptrace(PTRACE_SINGLESTEP, task_, nullptr, nullptr);  // a stop for its group
    }
    // It has to stand still to get its registers back.
    ptrace(PTRACE_INTERRUPT, task_, nullptr, nullptr);
    int status = 0;
    for (int round = 0; round < kCallRounds && waitpid(task_, &status, __WALL | WNOHANG) == 0;) {
      wait_a_moment(round++);
    }
    return -ETIMEDOUT;
  }

  bool put(const void* bytes, std::size_t count) {
    return count <= saved_memory_.size() && write_memory(scratch_, bytes, count);
  }
  [[nodiscard]] std::uint64_t scratch() const { return scratch_; }

 private:
  static constexpr auto kGetMask = static_cast<__ptrace_request>(0x420a);
  static constexpr auto kSetMask = static_cast<__ptrace_request>(0x420b);

  bool read_memory(std::uint64_t there, void* here, std::size_t bytes) const {
    iovec local{here, bytes};
    iovec remote{reinterpret_cast<void*>(there), bytes};
    return process_vm_readv(process_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(bytes);
  }
  bool write_memory(std::uint64_t there, const void* here, std::size_t bytes) const {
    iovec local{const_cast<void*>(here), bytes};
    iovec remote{reinterpret_cast<void*>(there), bytes};
    return process_vm_writev(process_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(bytes);
  }

  pid_t process_;
  pid_t task_;
  bool ready_ = false;
  std::uint64_t instruction_ = 0;
  std::uint64_t scratch_ = 0;
  std::uint64_t mask_ = 0;
  user_regs_struct saved_{};
  std::array<char, 32> saved_memory_{};
};

// The thread to borrow, and where there is a system call instruction.
struct Place {
  pid_t task = 0;
  std::uint64_t instruction = 0;
};

std::optional<Place> find_place(pid_t process, const std::vector<pid_t>& tasks) {
  for (const pid_t task : tasks) {
    user_regs_struct registers{};
    std::array<unsigned char, 2> code{};
    if (ptrace(PTRACE_GETREGS, task, nullptr, &registers) != 0 ||
        static_cast<long>(registers.orig_rax) < 0) {
      continue;
    }
    iovec local{code.data(), code.size()};
    iovec remote{reinterpret_cast<void*>(registers.rip - 2), code.size()};
    if (process_vm_readv(process, &local, 1, &remote, 1, 0) == 2 && code[0] == 0x0f &&
        code[1] == 0x05) {
      return Place{task, registers.rip - 2};
    }
  }
  return std::nullopt;
}

bool all_wait(const std::vector<pid_t>& tasks) {
  return std::all_of(tasks.begin(), tasks.end(), [](pid_t task) {
    user_regs_struct registers{};
    return ptrace(PTRACE_GETREGS, task, nullptr, &registers) == 0 &&
           static_cast<long>(registers.orig_rax) >= 0 && only_waits(registers.orig_rax);
  });
}

std::string error_text(const char* what, long error) {
  return std::string(what) + ": " + strerrordesc_np(static_cast<int>(-error));
}

// An idle socket in the process, of that domain and type; negative errno if there is none.
long make_idle(Borrowed& thread, const ToReplace& wanted, const char** step) {
  const int flags = SOCK_CLOEXEC | (wanted.nonblocking ? SOCK_NONBLOCK : 0);
  *step = "socket";
  const long idle = thread.call(SYS_socket, {static_cast<std::uint64_t>(wanted.domain),
                                             static_cast<std::uint64_t>(wanted.type | flags), 0});
  if (idle < 0 || wanted.type == SOCK_DGRAM) {
    return idle;
  }
  // Where nobody looks for it: the loopback device, or a name that the kernel finds.
  std::array<char, 28> address{};
  std::uint64_t length = sizeof(sa_family_t);
  if (wanted.domain == AF_INET) {
    sockaddr_in inet{};
    inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::memcpy(address.data(), &inet, sizeof(inet));
    length = sizeof(inet);
  } else if (wanted.domain == AF_INET6) {
    sockaddr_in6 inet{};
    inet.sin6_addr.s6_addr[10] = inet.sin6_addr.s6_addr[11] = 0xff;
    inet.sin6_addr.s6_addr[12] = 127;
    inet.sin6_addr.s6_addr[15] = 1;
    std::memcpy(address.data(), &inet, sizeof(inet));
    length = sizeof(inet);
  }
  const auto family = static_cast<sa_family_t>(wanted.domain);
  std::memcpy(address.data(), &family, sizeof(family));
  *step = "bind";
  long done =
      thread.put(address.data(), address.size())
          ? thread.call(SYS_bind, {static_cast<std::uint64_t>(idle), thread.scratch(), length})
          : -EFAULT;
  if (done >= 0) {
    *step = "listen";
    done = thread.call(SYS_listen, {static_cast<std::uint64_t>(idle), kIdleBacklog, 0});
  }
  if (done < 0) {
    thread.call(SYS_close, {static_cast<std::uint64_t>(idle), 0, 0});
    return done;
  }
  return idle;
}

}  // namespace

Replaced replace_sockets(pid_t process, const std::vector<ToReplace>& sockets, long own_filters) {
  Replaced result;
  if (filters_of(process) > own_filters) {
    result.failed = "it has a seccomp filter of its own";
    return result;
  }
  Stopped stopped(process);
  result.failed = stopped.stop_all();
  if (!result.failed.empty()) {
    return result;
  }
  const std::vector<pid_t> tasks = stopped.tasks();
  const std::optional<Place> place = find_place(process, tasks);
  const bool datagrams = std::any_of(sockets.begin(), sockets.end(),
                                     [](const ToReplace& each) { return each.type == SOCK_DGRAM; });
  // What it is just answering goes out by the socket that it came from.
  if (!place || (datagrams && !all_wait(tasks))) {
    result.failed = "it never waits";
    result.try_again = true;
    return result;
  }
  Borrowed thread(process, place->task);
  if (!thread.prepare(place->instruction)) {
    result.failed = "its registers can't be had";
    return result;
  }
  const os::UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  for (const ToReplace& each : sockets) {
    const char* step = "";
    const long idle = make_idle(thread, each, &step);
    if (idle < 0) {
      result.failed = error_text(step, idle);
      return result;
    }
    os::UniqueFd ours;
    if (each.type != SOCK_DGRAM) {
      ours.reset(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), idle, 0)));
    }
    const long placed = thread.call(
        SYS_dup3, {static_cast<std::uint64_t>(idle), static_cast<std::uint64_t>(each.fd),
                   each.close_on_exec ? std::uint64_t{O_CLOEXEC} : 0});
    thread.call(SYS_close, {static_cast<std::uint64_t>(idle), 0, 0});
    if (placed < 0) {
      result.failed = error_text("dup3", placed);
      return result;
    }
    if (ours) {
      result.idle.push_back(std::move(ours));
    }
  }
  return result;
}

#else

Replaced replace_sockets(pid_t, const std::vector<ToReplace>&, long) {
  Replaced result;
  result.failed = "this is not there yet for this kind of processor";
  return result;
}

#endif

}  // namespace einhorn::intercept
