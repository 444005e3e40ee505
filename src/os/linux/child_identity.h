// Taking on an identity between clone and exec: raw system calls only, no allocation, no lock.
//
// Internal to spawning (os/linux/spawn.cpp, guard/linux_system.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "os/identity.h"

namespace einhorn::os {

enum class IdentityStep {
  kNone,
  kCpus,
  kIoPriority,
  kOomScore,
  kRoot,
  kNoNewPrivs,
  kGroups,
  kGroup,
  kCapabilities,
  kUser,
};
[[nodiscard]] const char* name_of(IdentityStep step);

// An identity in the form that the child needs; made in the parent, which keeps it, and the
// Identity that it was made from, until the child has become the program.
class ChildIdentity {
 public:
  explicit ChildIdentity(const Identity& identity);

  // What is done without: CPUs, I/O priority, OOM score. Notes an errno for each that failed.
  void take_place(volatile int* cpu_error, volatile int* io_error, volatile int* oom_error) const;
  // The root directory and the umask; before the working directory is set. An errno, and at which
  // step; 0: done.
  int enter(IdentityStep& step) const;
  // Groups, capabilities, user: the last step but exec and PDEATHSIG, which a change of user
  // clears. From here on the user's other processes may signal this one.
  int become(IdentityStep& step) const;

 private:
  [[nodiscard]] int drop_bounding_set() const;
  [[nodiscard]] int set_capabilities() const;

  const Identity& identity_;
  std::vector<unsigned long> cpu_mask_;
  std::array<char, 16> oom_text_{};
  std::size_t oom_length_ = 0;
};

}  // namespace einhorn::os
