#include "os/identity.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include "base/numbers.h"
#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::os {
namespace {

constexpr std::uint32_t kMostCpus = 16 * 1024;
constexpr int kIoClassShift = 13;

constexpr auto kCapabilities = std::to_array<std::string_view>({"chown",
                                                                "dac_override",
                                                                "dac_read_search",
                                                                "fowner",
                                                                "fsetid",
                                                                "kill",
                                                                "setgid",
                                                                "setuid",
                                                                "setpcap",
                                                                "linux_immutable",
                                                                "net_bind_service",
                                                                "net_broadcast",
                                                                "net_admin",
                                                                "net_raw",
                                                                "ipc_lock",
                                                                "ipc_owner",
                                                                "sys_module",
                                                                "sys_rawio",
                                                                "sys_chroot",
                                                                "sys_ptrace",
                                                                "sys_pacct",
                                                                "sys_admin",
                                                                "sys_boot",
                                                                "sys_nice",
                                                                "sys_resource",
                                                                "sys_time",
                                                                "sys_tty_config",
                                                                "mknod",
                                                                "lease",
                                                                "audit_write",
                                                                "audit_control",
                                                                "setfcap",
                                                                "mac_override",
                                                                "mac_admin",
                                                                "syslog",
                                                                "wake_alarm",
                                                                "block_suspend",
                                                                "audit_read",
                                                                "perfmon",
                                                                "bpf",
                                                                "checkpoint_restore"});
static_assert(kCapabilities[CAP_NET_BIND_SERVICE] == "net_bind_service");
static_assert(kCapabilities[CAP_SYS_RESOURCE] == "sys_resource");
static_assert(kCapabilities[CAP_BPF] == "bpf");

Error wrong(std::string_view text, const std::string& why) {
  return make_error("", "\"" + std::string(text) + "\" " + why);
}

// Of a process that is gone: none.
std::vector<Pid> threads_of(Pid pid) {
  std::vector<Pid> threads;
  std::error_code gone;
  const std::string path = "/proc/" + std::to_string(pid) + "/task";
  for (auto at = std::filesystem::directory_iterator(path, gone);
       !gone && at != std::filesystem::directory_iterator(); at.increment(gone)) {
    threads.push_back(number_of<Pid>(at->path().filename().native()));
  }
  return threads;
}

}  // namespace

Result<User> find_user(const std::string& name) {
  const std::optional<std::uint32_t> number = whole_number<std::uint32_t>(name);
  const passwd* entry = number ? getpwuid(*number) : getpwnam(name.c_str());
  if (entry != nullptr) {
    return User{entry->pw_uid, entry->pw_gid, entry->pw_name, entry->pw_dir};
  }
  if (!number || *number == ~std::uint32_t{0}) {
    return make_error("", "there is no user \"" + name + "\"");
  }
  return User{*number, std::nullopt, "", ""};
}

Result<std::uint32_t> find_group(const std::string& name) {
  if (const std::optional<std::uint32_t> number = whole_number<std::uint32_t>(name)) {
    return *number;
  }
  if (const group* entry = getgrnam(name.c_str())) {
    return std::uint32_t{entry->gr_gid};
  }
  return make_error("", "there is no group \"" + name + "\"");
}

std::vector<std::uint32_t> groups_of(const User& user, std::uint32_t gid) {
  if (user.name.empty()) {
    return {gid};
  }
  std::vector<gid_t> groups(64);
  int count = static_cast<int>(groups.size());
  while (getgrouplist(user.name.c_str(), gid, groups.data(), &count) < 0) {
    groups.resize(std::max(groups.size() * 2, static_cast<std::size_t>(std::max(count, 0))));
    count = static_cast<int>(groups.size());
  }
  groups.resize(static_cast<std::size_t>(count));
  return {groups.begin(), groups.end()};
}

std::optional<std::uint64_t> capability_bit(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  std::string_view rest = lower;
  if (rest.starts_with("cap_")) {
    rest.remove_prefix(4);
  }
  const auto found = std::find(kCapabilities.begin(), kCapabilities.end(), rest);
  if (found == kCapabilities.end()) {
    return std::nullopt;
  }
  return std::uint64_t{1} << static_cast<unsigned>(found - kCapabilities.begin());
}

std::uint64_t own_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (syscall(SYS_capget, &header, data.data()) != 0) {
    return 0;
  }
  return data[0].permitted | std::uint64_t{data[1].permitted} << 32U;
}

Result<int> parse_io_priority(std::string_view text) {
  constexpr std::string_view kAllowed =
      "is no I/O priority (allowed: idle, best-effort[:0-7], realtime[:0-7])";
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const int class_number = name == "realtime"      ? 1
                           : name == "best-effort" ? 2
                           : name == "idle"        ? 3
                                                   : 0;
  std::uint32_t level = class_number == 3 ? 0 : 4;
  if (colon != std::string_view::npos) {
    const std::optional<std::uint32_t> given = whole_number<std::uint32_t>(text.substr(colon + 1));
    if (!given || *given > 7 || class_number == 3) {
      return wrong(text, std::string(kAllowed));
    }
    level = *given;
  }
  if (class_number == 0) {
    return wrong(text, std::string(kAllowed));
  }
  return class_number << kIoClassShift | static_cast<int>(level);
}

Result<std::vector<std::uint32_t>> parse_cpu_list(std::string_view text) {
  std::vector<std::uint32_t> cpus;
  std::string_view rest = text;
  while (true) {
    const std::size_t end = std::min(rest.find(','), rest.size());
    const std::string_view part = rest.substr(0, end);
    const std::size_t dash = part.find('-');
    const std::optional<std::uint32_t> first = whole_number<std::uint32_t>(part.substr(0, dash));
    const std::optional<std::uint32_t> last =
        dash == std::string_view::npos ? first : whole_number<std::uint32_t>(part.substr(dash + 1));
    if (!first || !last || *last < *first || *last >= kMostCpus) {
      return wrong(text, "is no list of CPUs (allowed: as 0-3,8)");
    }
    for (std::uint32_t cpu = *first; cpu <= *last; ++cpu) {
      cpus.push_back(cpu);
    }
    if (end == rest.size()) {
      break;
    }
    rest.remove_prefix(end + 1);
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

std::vector<std::vector<std::uint32_t>> cpu_layout(const std::string& root) {
  std::vector<std::uint32_t> allowed;
  const std::size_t bytes = CPU_ALLOC_SIZE(kMostCpus);
  if (cpu_set_t* set = CPU_ALLOC(kMostCpus)) {
    CPU_ZERO_S(bytes, set);
    if (sched_getaffinity(0, bytes, set) == 0) {
      for (std::uint32_t cpu = 0; cpu < kMostCpus; ++cpu) {
        if (CPU_ISSET_S(cpu, bytes, set)) {
          allowed.push_back(cpu);
        }
      }
    }
    CPU_FREE(set);
  }
  std::vector<std::vector<std::uint32_t>> nodes;
  std::vector<std::uint32_t> left = allowed;
  constexpr int kMostNodes = 1024;
  for (int node = 0; node < kMostNodes && !left.empty(); ++node) {
    const std::string path =
        root + "/sys/devices/system/node/node" + std::to_string(node) + "/cpulist";
    const UniqueFd file(retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); }));
    if (!file) {
      continue;  // numbers may have gaps
    }
    std::array<char, 4096> text{};
    const ssize_t length = retry([&] { return ::read(file.get(), text.data(), text.size()); });
    std::string_view list(text.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
    list = list.substr(0, list.find('\n'));
    const Result<std::vector<std::uint32_t>> cpus = parse_cpu_list(list);
    std::vector<std::uint32_t> here;
    for (const std::uint32_t cpu : cpus ? *cpus : std::vector<std::uint32_t>{}) {
      if (std::erase(left, cpu) > 0) {
        here.push_back(cpu);
      }
    }
    if (!here.empty()) {
      nodes.push_back(std::move(here));
    }
  }
  if (!left.empty()) {
    nodes.push_back(std::move(left));
  }
  return nodes;
}

Status set_affinity(Pid pid, const std::vector<std::uint32_t>& cpus) {
  const std::size_t bytes = CPU_ALLOC_SIZE(kMostCpus);
  cpu_set_t* set = CPU_ALLOC(kMostCpus);
  if (set == nullptr) {
    return Error{ENOMEM, "set CPU affinity", ""};
  }
  CPU_ZERO_S(bytes, set);
  for (const std::uint32_t cpu : cpus) {
    CPU_SET_S(cpu, bytes, set);
  }
  int error = sched_setaffinity(pid, bytes, set) == 0 ? 0 : errno;
  for (const Pid thread : threads_of(pid)) {
    if (error == 0 && thread != pid && sched_setaffinity(thread, bytes, set) != 0) {
      error = errno == ESRCH ? 0 : errno;
    }
  }
  CPU_FREE(set);
  return error == 0 ? Status(Ok{}) : Status(Error{error, "set CPU affinity", ""});
}

Status set_io_priority(Pid pid, int priority) {
  constexpr int kProcess = 1;
  if (syscall(SYS_ioprio_set, kProcess, pid, priority) != 0) {
    return Error{errno, "set I/O priority", ""};
  }
  return Ok{};
}

}  // namespace einhorn::os
