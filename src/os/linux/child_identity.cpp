#include "os/linux/child_identity.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>

namespace einhorn::os {
namespace {

constexpr std::array<const char*, 10> kStepNames = {"",
                                                    "set CPU affinity",
                                                    "set I/O priority",
                                                    "set OOM score",
                                                    "chroot",
                                                    "set no_new_privs",
                                                    "set supplementary groups",
                                                    "set group",
                                                    "keep capabilities",
                                                    "set user"};
static_assert(static_cast<std::size_t>(IdentityStep::kUser) + 1 == kStepNames.size());

constexpr unsigned kLastCapability = 63;

// glibc's errno is the thread's, which is our parent's until the exec: it is set again there.
int error_of(long result) { return result < 0 ? errno : 0; }

}  // namespace

const char* name_of(IdentityStep step) { return kStepNames.at(static_cast<std::size_t>(step)); }

ChildIdentity::ChildIdentity(const Identity& identity) : identity_(identity) {
  constexpr std::size_t kBits = sizeof(unsigned long) * CHAR_BIT;
  for (const std::uint32_t cpu : identity.cpus) {
    cpu_mask_.resize(std::max<std::size_t>(cpu_mask_.size(), cpu / kBits + 1));
    cpu_mask_[cpu / kBits] |= 1UL << (cpu % kBits);
  }
  if (identity.oom_score_adj) {
    oom_length_ = static_cast<std::size_t>(
        std::snprintf(oom_text_.data(), oom_text_.size(), "%d", *identity.oom_score_adj));
  }
}

void ChildIdentity::take_place(volatile int* cpu_error, volatile int* io_error,
                               volatile int* oom_error) const {
  constexpr int kIoOfProcess = 1;
  if (!cpu_mask_.empty()) {
    *cpu_error = error_of(syscall(SYS_sched_setaffinity, 0,
                                  cpu_mask_.size() * sizeof(unsigned long), cpu_mask_.data()));
  }
  if (identity_.io_priority) {
    *io_error = error_of(syscall(SYS_ioprio_set, kIoOfProcess, 0, *identity_.io_priority));
  }
  if (oom_length_ > 0) {
    const long file =
        syscall(SYS_openat, AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC, 0);
    if (file < 0) {
      *oom_error = errno;
      return;
    }
    *oom_error = error_of(syscall(SYS_write, file, oom_text_.data(), oom_length_));
    syscall(SYS_close, file);
  }
}

int ChildIdentity::enter(IdentityStep& step) const {
  if (!identity_.root.empty()) {
    step = IdentityStep::kRoot;
    if (syscall(SYS_chroot, identity_.root.c_str()) < 0 || syscall(SYS_chdir, "/") < 0) {
      return errno;
    }
  }
  if (identity_.umask) {
    syscall(SYS_umask, *identity_.umask);
  }
  return 0;
}

// Nothing brings these back, not even a program that is set-user-ID root. Without the right to do
// it, as an ordinary user, there is nothing that a program could get back but by such a file.
int ChildIdentity::drop_bounding_set() const {
  for (unsigned number = 0; number <= kLastCapability; ++number) {
    if ((*identity_.capabilities >> number & 1U) == 0 &&
        syscall(SYS_prctl, PR_CAPBSET_READ, number, 0, 0, 0) == 1 &&
        syscall(SYS_prctl, PR_CAPBSET_DROP, number, 0, 0, 0) < 0 && errno != EPERM) {
      return errno;
    }
  }
  return 0;
}

// Exactly these, in every set: as ambient ones they survive the exec of a program without
// capabilities of its own.
int ChildIdentity::set_capabilities() const {
  const std::uint64_t kept = *identity_.capabilities;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  for (std::size_t half = 0; half < data.size(); ++half) {
    const auto bits = static_cast<std::uint32_t>(kept >> (32 * half));
    data[half] = {bits, bits, bits};
  }
  syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(SYS_capset, &header, data.data()) < 0) {
    return errno;
  }
  for (unsigned number = 0; number <= kLastCapability; ++number) {
    if ((kept >> number & 1U) != 0 &&
        syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) < 0) {
      return errno;
    }
  }
  return 0;
}

int ChildIdentity::become(IdentityStep& step) const {
  if (identity_.no_new_privs) {
    step = IdentityStep::kNoNewPrivs;
    if (syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
      return errno;
    }
  }
  if (identity_.groups) {
    step = IdentityStep::kGroups;
    if (syscall(SYS_setgroups, identity_.groups->size(), identity_.groups->data()) < 0) {
      return errno;
    }
  }
  if (identity_.gid) {
    step = IdentityStep::kGroup;
    if (syscall(SYS_setresgid, *identity_.gid, *identity_.gid, *identity_.gid) < 0) {
      return errno;
    }
  }
  if (identity_.capabilities) {
    step = IdentityStep::kCapabilities;
    if (const int error = drop_bounding_set(); error != 0) {
      return error;
    }
    if (identity_.uid) {
      syscall(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
    }
  }
  if (identity_.uid) {
    step = IdentityStep::kUser;
    if (syscall(SYS_setresuid, *identity_.uid, *identity_.uid, *identity_.uid) < 0) {
      return errno;
    }
  }
  if (identity_.capabilities) {
    step = IdentityStep::kCapabilities;
    return set_capabilities();
  }
  return 0;
}

}  // namespace einhorn::os
