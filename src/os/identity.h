// As whom, where and with which rights a program runs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace einhorn::os {

// What a new process takes on before it becomes the program; what is not given stays as it is.
struct Identity {
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::vector<std::uint32_t>> groups;  // supplementary ones
  std::optional<std::uint32_t> umask;
  std::string root;  // chroot; "" none
  bool no_new_privs = false;
  std::optional<std::uint64_t> capabilities;  // a bit each; all others go, for good
  std::optional<int> oom_score_adj;
  std::optional<int> io_priority;   // as ioprio_set takes it
  std::vector<std::uint32_t> cpus;  // empty: any

  friend bool operator==(const Identity&, const Identity&) = default;
};

struct User {
  std::uint32_t uid = 0;
  std::optional<std::uint32_t> gid;  // none: a number that no user has
  std::string name;                  // "" for such a number
  std::string home;
};
// By name or number. Errors: no such user.
[[nodiscard]] Result<User> find_user(const std::string& name);
// By name or number. Errors: no such group.
[[nodiscard]] Result<std::uint32_t> find_group(const std::string& name);
// All groups of a user, `gid` included.
[[nodiscard]] std::vector<std::uint32_t> groups_of(const User& user, std::uint32_t gid);

// "cap_net_bind_service", in any case, with or without "cap_" -> its bit.
[[nodiscard]] std::optional<std::uint64_t> capability_bit(std::string_view name);
// Those that this process may use (permitted).
[[nodiscard]] std::uint64_t own_capabilities();

// "idle", "best-effort[:0-7]", "realtime[:0-7]" -> what ioprio_set takes. Errors have no operation.
[[nodiscard]] Result<int> parse_io_priority(std::string_view text);

// "0-3,8" -> the numbers, in order. Errors have no operation.
[[nodiscard]] Result<std::vector<std::uint32_t>> parse_cpu_list(std::string_view text);
// The CPUs that this process may run on, those of one NUMA node in one list.
[[nodiscard]] std::vector<std::vector<std::uint32_t>> cpu_layout(const std::string& root = "");

// Puts a running process of ours onto these CPUs, with all its threads that there are by then.
[[nodiscard]] Status set_affinity(Pid pid, const std::vector<std::uint32_t>& cpus);
// Gives a running process of ours an I/O priority.
[[nodiscard]] Status set_io_priority(Pid pid, int priority);

}  // namespace einhorn::os
