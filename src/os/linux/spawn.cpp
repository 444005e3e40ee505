// Spawning a program: clone3 with CLONE_VM|CLONE_VFORK on a stack of its own, then setup and exec.
//
// The cost does not depend on the master's size, and a failed exec is known when clone3 returns:
// the child shares our memory and leaves {stage, errno} there. All signals are blocked around the
// clone. Everything between the clone and the exec is in `child_main`: raw system calls only, no
// allocation, no lock, no library function that may take one.
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>

#include "os/linux/intercept.h"
#include "os/linux/linux_kernel.h"
#include "os/linux/retry.h"

namespace einhorn::os {
namespace {

enum class Stage { kNone, kGroup, kParent, kDirectory, kDescriptors, kConnect, kIntercept, kExec };
constexpr std::array<const char*, 8> kStageNames = {
    "",    "setpgid", "watch parent", "chdir", "pass descriptors", "connect", "intercept (seccomp)",
    "exec"};
static_assert(static_cast<std::size_t>(Stage::kExec) + 1 == kStageNames.size());

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr int kPidDigits = 12;
constexpr int kSignals = 64;

struct ChildPlan {
  const char* program = nullptr;
  char* const* arguments = nullptr;
  char* const* environment = nullptr;
  const char* directory = nullptr;
  const DescriptorMove* moves = nullptr;
  std::size_t move_count = 0;
  const int* closed = nullptr;
  std::size_t closed_count = 0;
  const sockaddr_un* connect_to = nullptr;
  int connect_as = -1;
  int keep_below = 0;
  bool own_group = false;
  int parent_death_signal = 0;
  std::uint64_t changed_signals = 0;
  Pid parent = 0;
  const int* nice = nullptr;
  rlimit descriptors{};  // what RLIMIT_NOFILE was; a limit of 0: it has not been changed
  const sock_fprog* intercept = nullptr;
  Pid watcher = 0;
  char* pid_digits = nullptr;  // where the child writes its own pid in decimal
  // what the child leaves behind
  volatile Stage stage = Stage::kNone;
  volatile int error = 0;
  volatile int nice_error = 0;
  volatile int notify = -1;
};

[[noreturn]] void child_fail(ChildPlan* plan, Stage stage, int error) {
  plan->error = error;
  plan->stage = stage;
  syscall(SYS_exit_group, 127);
  __builtin_unreachable();
}

void write_pid(char* into, long pid) {
  std::array<char, kPidDigits> reversed{};
  std::size_t count = 0;
  do {
    reversed[count++] = static_cast<char>('0' + pid % 10);
    pid /= 10;
  } while (pid > 0);
  for (std::size_t i = 0; i < count; ++i) {
    into[i] = reversed[count - 1 - i];
  }
  into[count] = '\0';
}

constexpr std::uint64_t bit_of(int number) { return std::uint64_t{1} << (number - 1); }

// As the kernel has it. The raw call: glibc refuses the two signals that it uses itself.
struct RawAction {
  void (*handler)(int) = SIG_DFL;
  unsigned long flags = 0;
  void (*restorer)() = nullptr;
  unsigned long mask = 0;
};

// The signals that are not at their default here, a bit each.
std::uint64_t changed_signals() {
  std::uint64_t changed = 0;
  for (int number = 1; number <= kSignals; ++number) {
    RawAction action;
    if (syscall(SYS_rt_sigaction, number, nullptr, &action, sizeof(unsigned long)) == 0 &&
        action.handler != SIG_DFL) {
      changed |= bit_of(number);
    }
  }
  return changed;
}

void reset_signals(std::uint64_t changed) {
  for (int number = 1; number <= kSignals; ++number) {
    if ((changed & bit_of(number)) != 0) {
      const RawAction usual;
      syscall(SYS_rt_sigaction, number, &usual, nullptr, sizeof(unsigned long));
    }
  }
  const unsigned long empty = 0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &empty, nullptr, sizeof(empty));
}

void child_descriptors(ChildPlan* plan) {
  for (std::size_t i = 0; i < plan->closed_count; ++i) {
    syscall(SYS_close, plan->closed[i]);
  }
  // No `from` is another one's `to`, so no move overwrites another one's source.
  for (std::size_t i = 0; i < plan->move_count; ++i) {
    if (syscall(SYS_dup3, plan->moves[i].from, plan->moves[i].to, 0) < 0) {
      child_fail(plan, Stage::kDescriptors, errno);
    }
  }
  if (plan->connect_to != nullptr) {
    const long socket = syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket < 0 ||
        syscall(SYS_connect, socket, plan->connect_to, sizeof(*plan->connect_to)) < 0) {
      child_fail(plan, Stage::kConnect, errno);
    }
    syscall(SYS_fcntl, socket, F_SETFL, 0);
    if (socket == plan->connect_as) {
      syscall(SYS_fcntl, socket, F_SETFD, 0);
    } else if (syscall(SYS_dup3, socket, plan->connect_as, 0) < 0) {
      child_fail(plan, Stage::kDescriptors, errno);
    }
  }
}

int child_main(void* argument) {
  auto* plan = static_cast<ChildPlan*>(argument);
  // Now, so that the filter's notify descriptor is in the table that the parent has too. Nothing
  // below makes a call that it tells of.
  if (plan->intercept != nullptr) {
    bool no_new_privs = false;
    const int notify = install_intercept_filter(plan->intercept, &no_new_privs);
    if (notify < 0) {
      child_fail(plan, Stage::kIntercept, -notify);
    }
    plan->notify = notify;
    syscall(SYS_prctl, PR_SET_PTRACER, plan->watcher, 0, 0, 0);  // of a meaning under Yama only
  }
  // The table of descriptors is still the parent's: get one of our own that holds the low numbers.
  if (syscall(SYS_close_range, plan->keep_below, ~0U, CLOSE_RANGE_UNSHARE) < 0 &&
      syscall(SYS_unshare, CLONE_FILES) < 0) {
    child_fail(plan, Stage::kDescriptors, errno);
  }
  if (plan->own_group && syscall(SYS_setpgid, 0, 0) < 0) {
    child_fail(plan, Stage::kGroup, errno);
  }
  if (plan->nice != nullptr && syscall(SYS_setpriority, PRIO_PROCESS, 0, *plan->nice) < 0) {
    plan->nice_error = errno;  // no reason not to serve
  }
  if (plan->directory != nullptr && syscall(SYS_chdir, plan->directory) < 0) {
    child_fail(plan, Stage::kDirectory, errno);
  }
  child_descriptors(plan);
  if (plan->parent_death_signal != 0) {
    syscall(SYS_prctl, PR_SET_PDEATHSIG, plan->parent_death_signal, 0, 0, 0);
    if (syscall(SYS_getppid) != plan->parent) {
      child_fail(plan, Stage::kParent, ESRCH);
    }
  }
  if (plan->pid_digits != nullptr) {
    write_pid(plan->pid_digits, syscall(SYS_getpid));
  }
  if (plan->descriptors.rlim_max != 0) {
    syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &plan->descriptors, nullptr);
  }
  reset_signals(plan->changed_signals);
  syscall(SYS_execve, plan->program, plan->arguments, plan->environment);
  child_fail(plan, Stage::kExec, errno);
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

struct CloneResult {
  long pid = -1;
  int pidfd = -1;
  int error = 0;
};

#if defined(__x86_64__)
// clone3 has no C wrapper: the child starts on a new stack, so the call and the child's first step
// must be one piece of assembly.
long raw_clone3(clone_args* arguments, int (*child)(void*), void* argument) {
  long result = 0;
  __asm__ volatile(
      "movq %[child], %%r12\n\t"
      "movq %[argument], %%r13\n\t"
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "movq %%r13, %%rdi\n\t"
      "callq *%%r12\n\t"
      "movl %%eax, %%edi\n\t"
      "movl $231, %%eax\n\t"
      "syscall\n\t"
      "hlt\n\t"
      "1:\n\t"
      : "=a"(result)
      : "0"(static_cast<long>(SYS_clone3)), "D"(arguments),
        "S"(sizeof(clone_args)), [child] "r"(child), [argument] "r"(argument)
      : "rcx", "r11", "r12", "r13", "memory", "cc");
  return result;
}
#endif

CloneResult clone_child(ChildPlan* plan, const SpawnSpec& spec, void* stack) {
  std::int32_t ignored = 0;
  std::int32_t* const pid_into = spec.note != nullptr ? &spec.note->pid : &ignored;
  unsigned long everything = ~0UL;
  unsigned long before = 0;
  int pidfd = -1;
  long result = 0;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &everything, &before, sizeof(before));
#if defined(__x86_64__)
  clone_args arguments{};
  arguments.flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_PIDFD | CLONE_PARENT_SETTID;
  if (spec.sibling) {
    arguments.flags |= CLONE_PARENT;  // with the exit signal that we have ourselves
  } else {
    arguments.exit_signal = SIGCHLD;
  }
  arguments.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  arguments.parent_tid = reinterpret_cast<std::uint64_t>(pid_into);
  arguments.stack = reinterpret_cast<std::uint64_t>(stack);
  arguments.stack_size = kStackBytes;
  result = raw_clone3(&arguments, child_main, plan);
#else
  const int flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_PARENT_SETTID | SIGCHLD |
                    (spec.sibling ? CLONE_PARENT : 0);
  result = clone(child_main, static_cast<char*>(stack) + kStackBytes, flags, plan, pid_into);
  if (result < 0) {
    result = -errno;
  } else {
    pidfd = static_cast<int>(syscall(SYS_pidfd_open, result, 0));
  }
#endif
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof(before));
  if (result < 0) {
    return {-1, -1, static_cast<int>(-result)};
  }
  return {result, pidfd, 0};
}

Error stage_error(const ChildPlan& plan, const SpawnSpec& spec) {
  const Stage stage = plan.stage;
  std::string operation = kStageNames.at(static_cast<std::size_t>(stage));
  if (stage == Stage::kExec) {
    operation += " " + spec.program;  // and not how it is called: which release it is counts
  } else if (stage == Stage::kDirectory) {
    operation += " " + spec.directory;
  } else if (stage == Stage::kConnect) {
    operation += " " + spec.connect_to;
  }
  return Error{plan.error, operation, ""};
}

}  // namespace

LinuxKernel::~LinuxKernel() {
  if (spawn_stack_ != nullptr) {
    munmap(spawn_stack_, kStackBytes);
  }
}

Result<Spawned> LinuxKernel::spawn(const SpawnSpec& spec) {
  static_assert(sizeof(SpawnNote::pid) == sizeof(pid_t));
  std::vector<std::string> arguments = spec.arguments;
  std::vector<std::string> environment = spec.environment;
  ChildPlan plan;
  std::string pid_entry;
  if (!spec.pid_variable.empty()) {
    pid_entry = spec.pid_variable + std::string(kPidDigits, '\0');
    environment.push_back(pid_entry);
    plan.pid_digits = environment.back().data() + spec.pid_variable.size();
  }
  std::vector<char*> argv = pointers(arguments);
  std::vector<char*> envp = pointers(environment);
  plan.program = spec.program.c_str();
  plan.arguments = argv.data();
  plan.environment = envp.data();
  plan.directory = spec.directory.empty() ? nullptr : spec.directory.c_str();
  plan.moves = spec.descriptors.data();
  plan.move_count = spec.descriptors.size();
  plan.closed = spec.closed.data();
  plan.closed_count = spec.closed.size();
  plan.keep_below = spec.keep_below;
  plan.own_group = spec.own_group;
  plan.parent_death_signal = spec.parent_death_signal;
  plan.parent = spec.sibling ? getppid() : getpid();
  plan.nice = spec.nice ? &*spec.nice : nullptr;
  plan.intercept = spec.intercept ? intercept_filter(spec.allow_io_uring) : nullptr;
  plan.watcher = spec.watcher;
  plan.descriptors.rlim_cur = soft_descriptors_;
  plan.descriptors.rlim_max = hard_descriptors_;
  sockaddr_un address{};
  if (!spec.connect_to.empty()) {
    address.sun_family = AF_UNIX;
    if (spec.connect_to.size() >= sizeof(address.sun_path)) {
      return Error{ENAMETOOLONG, "connect " + spec.connect_to, ""};
    }
    std::memcpy(address.sun_path, spec.connect_to.data(), spec.connect_to.size());
    plan.connect_to = &address;
    plan.connect_as = spec.connect_as;
  }
  if (spawn_stack_ == nullptr) {
    void* const stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
      return Error{errno, "spawn " + spec.program, "no stack for the child"};
    }
    spawn_stack_ = stack;
    changed_signals_ = changed_signals();
  }
  plan.changed_signals = changed_signals_;
  const CloneResult child = clone_child(&plan, spec, spawn_stack_);
  if (child.error != 0) {
    return Error{child.error, "spawn " + spec.program, ""};
  }
  const int notify = plan.notify;
  Spawned spawned;
  spawned.pid = static_cast<Pid>(child.pid);
  spawned.pidfd = child.pidfd;
  spawned.nice_error = plan.nice_error;
  if (plan.stage != Stage::kNone) {
    spawned.failed = stage_error(plan, spec);
    if (notify >= 0) {
      close_descriptor(notify);
    }
  } else {
    spawned.notify = notify;
  }
  return spawned;
}

}  // namespace einhorn::os
