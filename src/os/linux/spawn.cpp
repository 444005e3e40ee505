// Spawning a program: clone3 (or clone, where there is none) with CLONE_VM|CLONE_VFORK on a stack of
// its own, then setup and exec.
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
#include <optional>
#include <utility>

#include "os/c_strings.h"
#include "os/linux/child_identity.h"
#include "os/linux/intercept.h"
#include "os/linux/linux_kernel.h"
#include "os/linux/retry.h"

namespace einhorn::os {
namespace {

enum class Stage {
  kNone,
  kGroup,
  kCgroup,
  kParent,
  kDirectory,
  kDescriptors,
  kConnect,
  kIntercept,
  kLimit,
  kIdentity,
  kExec
};
constexpr std::array<const char*, 11> kStageNames = {"",
                                                     "setpgid",
                                                     "join control group",
                                                     "watch parent",
                                                     "chdir",
                                                     "pass descriptors",
                                                     "connect",
                                                     "intercept (seccomp)",
                                                     "setrlimit",
                                                     "identity",
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
  std::array<int, 2> outputs{-1, -1};  // what becomes 1 and 2
  char* const* cgroups = nullptr;      // files to write our pid to; a null at the end
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
  const ChildIdentity* identity = nullptr;
  const ResourceLimit* limits = nullptr;
  std::size_t limit_count = 0;
  rlimit descriptors{};  // what RLIMIT_NOFILE was; a limit of 0: it has not been changed
  const sock_fprog* intercept = nullptr;
  Pid watcher = 0;
  char* pid_digits = nullptr;  // where the child writes its own pid in decimal
  // what the child leaves behind
  volatile Stage stage = Stage::kNone;
  volatile int error = 0;
  volatile int nice_error = 0;
  volatile int cpu_error = 0;
  volatile int io_error = 0;
  volatile int oom_error = 0;
  IdentityStep identity_step = IdentityStep::kNone;
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
  // First, as their places may be another one's `to`.
  for (int i = 0; i < 2; ++i) {
    const int from = plan->outputs[static_cast<std::size_t>(i)];
    if (from >= 0 && syscall(SYS_dup3, from, i + 1, 0) < 0) {
      child_fail(plan, Stage::kDescriptors, errno);
    }
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
  }
  if (plan->watcher != 0) {
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
  for (char* const* file = plan->cgroups; *file != nullptr; ++file) {
    const long group = syscall(SYS_openat, AT_FDCWD, *file, O_WRONLY | O_CLOEXEC);
    if (group < 0 || syscall(SYS_write, group, "0", 1) < 0) {
      child_fail(plan, Stage::kCgroup, errno);
    }
    syscall(SYS_close, group);
  }
  if (plan->nice != nullptr && syscall(SYS_setpriority, PRIO_PROCESS, 0, *plan->nice) < 0) {
    plan->nice_error = errno;  // no reason not to serve
  }
  if (plan->identity != nullptr) {
    plan->identity->take_place(&plan->cpu_error, &plan->io_error, &plan->oom_error);
    if (const int error = plan->identity->enter(plan->identity_step); error != 0) {
      child_fail(plan, Stage::kIdentity, error);
    }
  }
  if (plan->directory != nullptr && syscall(SYS_chdir, plan->directory) < 0) {
    child_fail(plan, Stage::kDirectory, errno);
  }
  child_descriptors(plan);
  if (plan->pid_digits != nullptr) {
    write_pid(plan->pid_digits, syscall(SYS_getpid));
  }
  if (plan->descriptors.rlim_max != 0) {
    syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &plan->descriptors, nullptr);
  }
  for (std::size_t i = 0; i < plan->limit_count; ++i) {
    const rlimit limit{plan->limits[i].soft, plan->limits[i].hard};
    if (syscall(SYS_prlimit64, 0, plan->limits[i].resource, &limit, nullptr) < 0) {
      child_fail(plan, Stage::kLimit, errno);
    }
  }
  reset_signals(plan->changed_signals);
  // As late as possible: whoever runs as that user could stop this process from here on, and with
  // it, until the exec, us.
  if (plan->identity != nullptr) {
    if (const int error = plan->identity->become(plan->identity_step); error != 0) {
      child_fail(plan, Stage::kIdentity, error);
    }
  }
  if (plan->parent_death_signal != 0) {
    syscall(SYS_prctl, PR_SET_PDEATHSIG, plan->parent_death_signal, 0, 0, 0);
    if (syscall(SYS_getppid) != plan->parent) {
      child_fail(plan, Stage::kParent, ESRCH);
    }
  }
  syscall(SYS_execve, plan->program, plan->arguments, plan->environment);
  child_fail(plan, Stage::kExec, errno);
}

struct CloneResult {
  long pid = -1;
  int pidfd = -1;
  int error = 0;
};

#if defined(__x86_64__)
// Neither clone3 nor clone with a child on a stack of its own can be called from C: the call and the
// child's first step must be one piece of assembly.
long raw_clone(long number, const std::array<std::uint64_t, 3>& arguments, int (*child)(void*),
               void* argument) {
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
      : "0"(number), "D"(arguments[0]), "S"(arguments[1]),
        "d"(arguments[2]), [child] "r"(child), [argument] "r"(argument)
      : "rcx", "r8", "r10", "r11", "r12", "r13", "memory", "cc");
  return result;
}
#endif

constexpr unsigned kCloneFlags = CLONE_VM | CLONE_VFORK | CLONE_PARENT_SETTID;

#if defined(__x86_64__)
long clone3_child(ChildPlan* plan, const SpawnSpec& spec, void* stack, std::int32_t* pid_into,
                  int* pidfd) {
  clone_args arguments{};
  arguments.flags = kCloneFlags | CLONE_FILES | CLONE_PIDFD;
  if (spec.sibling) {
    arguments.flags |= CLONE_PARENT;  // with the exit signal that we have ourselves
  } else {
    arguments.exit_signal = SIGCHLD;
  }
  arguments.pidfd = reinterpret_cast<std::uint64_t>(pidfd);
  arguments.parent_tid = reinterpret_cast<std::uint64_t>(pid_into);
  arguments.stack = reinterpret_cast<std::uint64_t>(stack);
  arguments.stack_size = kStackBytes;
  return raw_clone(SYS_clone3, {reinterpret_cast<std::uint64_t>(&arguments), sizeof(arguments), 0},
                   child_main, plan);
}
#endif

// Where clone3 does not exist or is forbidden (some sandboxes and container engines). Only clone3
// gives both the pidfd and the pid before the child runs, so the pidfd is opened afterwards. The table of
// descriptors is shared only if something has to come back in it: valgrind knows no such vfork.
long clone_child_plainly(ChildPlan* plan, const SpawnSpec& spec, void* stack,
                         std::int32_t* pid_into, int* pidfd) {
  const unsigned flags = kCloneFlags | SIGCHLD | (spec.sibling ? CLONE_PARENT : 0U) |
                         (spec.intercept ? CLONE_FILES : 0U);
  char* const top = static_cast<char*>(stack) + kStackBytes;
#if defined(__x86_64__)
  const long result = raw_clone(
      SYS_clone,
      {flags, reinterpret_cast<std::uint64_t>(top), reinterpret_cast<std::uint64_t>(pid_into)},
      child_main, plan);
#else
  const int made = clone(child_main, top, static_cast<int>(flags), plan, pid_into);
  const long result = made < 0 ? -errno : made;
#endif
  if (result < 0) {
    return result;
  }
  *pidfd = static_cast<int>(syscall(SYS_pidfd_open, result, 0));
  if (*pidfd >= 0) {
    return result;
  }
  const int error = errno;
  if (error != ESRCH) {
    syscall(SYS_kill, result, SIGKILL);  // nobody could watch it
  }
  return -error;
}

CloneResult clone_child(ChildPlan* plan, const SpawnSpec& spec, void* stack) {
  std::int32_t ignored = 0;
  std::int32_t* const pid_into = spec.note != nullptr ? &spec.note->pid : &ignored;
  unsigned long everything = ~0UL;
  unsigned long before = 0;
  int pidfd = -1;
  long result = -ENOSYS;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &everything, &before, sizeof(before));
#if defined(__x86_64__)
  result = clone3_child(plan, spec, stack, pid_into, &pidfd);
#endif
  if (result == -ENOSYS || result == -EPERM) {
    result = clone_child_plainly(plan, spec, stack, pid_into, &pidfd);
  }
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof(before));
  if (result < 0) {
    return {-1, -1, static_cast<int>(-result)};
  }
  return {result, pidfd, 0};
}

Error stage_error(const ChildPlan& plan, const SpawnSpec& spec) {
  const Stage stage = plan.stage;
  std::string operation = kStageNames.at(static_cast<std::size_t>(stage));
  if (stage == Stage::kIdentity) {
    operation = name_of(plan.identity_step);
    if (plan.identity_step == IdentityStep::kRoot) {
      operation += " " + spec.identity.root;
    }
  } else if (stage == Stage::kExec) {
    operation += " " + spec.program;  // and not how it is called: which release it is counts
  } else if (stage == Stage::kDirectory) {
    operation += " " + spec.directory;
  } else if (stage == Stage::kConnect) {
    operation += " " + spec.connect_to;
  }
  return Error{plan.error, operation, ""};
}

// A change of user in the child has made our memory, which it shared, undumpable: nobody of that
// user may look into it. Now it is ours alone again.
class Dumpable {
 public:
  Dumpable() : before_(prctl(PR_GET_DUMPABLE)) {}
  ~Dumpable() {
    if (before_ == 1) {
      prctl(PR_SET_DUMPABLE, 1);
    }
  }
  Dumpable(const Dumpable&) = delete;
  Dumpable& operator=(const Dumpable&) = delete;

 private:
  int before_;
};

void note_unmet(const ChildPlan& plan, Spawned& spawned) {
  for (const auto& [error, step] : {std::pair(int{plan.cpu_error}, IdentityStep::kCpus),
                                    std::pair(int{plan.io_error}, IdentityStep::kIoPriority),
                                    std::pair(int{plan.oom_error}, IdentityStep::kOomScore)}) {
    if (error != 0) {
      spawned.unmet.push_back(Error{error, name_of(step), ""});
    }
  }
}

}  // namespace

LinuxKernel::~LinuxKernel() {
  if (spawn_stack_ != nullptr) {
    munmap(spawn_stack_, kStackBytes);
  }
}

// Else a pipe would stay open for writing.
void LinuxKernel::clear_places() {
  for (const UniqueFd& place : places_) {
    if (place && nothing_) {
      dup3(nothing_.get(), place.get(), O_CLOEXEC);
    }
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
  std::vector<char*> argv = c_strings(arguments);
  std::vector<char*> envp = c_strings(environment);
  std::vector<std::string> cgroups = spec.cgroups;
  std::vector<char*> cgroup_files = c_strings(cgroups);
  plan.cgroups = cgroup_files.data();
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
  std::optional<ChildIdentity> identity;
  std::optional<Dumpable> dumpable;
  if (spec.identity != Identity{}) {
    plan.identity = &identity.emplace(spec.identity);
    dumpable.emplace();
  }
  plan.intercept = spec.intercept ? intercept_filter(spec.allow_io_uring) : nullptr;
  plan.watcher = spec.watcher;
  plan.limits = spec.limits.data();
  plan.limit_count = spec.limits.size();
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
  const std::array<int, 2> outputs{spec.output, spec.error_output};
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i] >= 0) {
      const int place = places_[i].get();
      if (place < 0 || dup3(outputs[i], place, O_CLOEXEC) < 0) {
        clear_places();
        return Error{place < 0 ? EMFILE : errno, "spawn " + spec.program, "its output"};
      }
      plan.outputs[i] = place;
      plan.keep_below = std::max(plan.keep_below, place + 1);
    }
  }
  const CloneResult child = clone_child(&plan, spec, spawn_stack_);
  if (plan.outputs[0] >= 0 || plan.outputs[1] >= 0) {
    clear_places();
  }
  if (child.error != 0) {
    return Error{child.error, "spawn " + spec.program, ""};
  }
  const int notify = plan.notify;
  Spawned spawned;
  spawned.pid = static_cast<Pid>(child.pid);
  spawned.pidfd = child.pidfd;
  spawned.nice_error = plan.nice_error;
  note_unmet(plan, spawned);
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
