// Processes and the file system of the real kernel.
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/numbers.h"
#include "os/linux/linux_kernel.h"
#include "os/linux/retry.h"

namespace einhorn::os {
namespace {

// The beginning of a small file of procfs; "" if there is none.
std::string read_proc(Pid pid, const char* name) {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/%s", pid, name);
  const UniqueFd file(retry([&] { return ::open(path.data(), O_RDONLY | O_CLOEXEC); }));
  if (!file) {
    return {};
  }
  std::array<char, 1024> text{};
  const ssize_t count = retry([&] { return ::read(file.get(), text.data(), text.size()); });
  return count > 0 ? std::string(text.data(), static_cast<std::size_t>(count)) : std::string();
}

// The Nth word (from 0) of a text, as a number.
std::int64_t number_at(std::string_view text, int index) {
  while (index-- > 0) {
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos) {
      return 0;
    }
    text.remove_prefix(space + 1);
  }
  return number_of<std::int64_t>(text);
}

// Without "/./", for people to read.
std::string plain_path(std::string path) {
  for (std::size_t at = 0; (at = path.find("/./", at)) != std::string::npos;) {
    path.erase(at, 2);
  }
  return path;
}

bool is_program(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && !S_ISDIR(status.st_mode);
}

}  // namespace

bool LinuxKernel::signal(int pidfd, Pid pid, int signal, bool group) {
  if (pid <= 1) {
    return false;
  }
  if (pidfd >= 0) {
    // The pidfd first: it can't name somebody else's process. While the process exists, even as a
    // zombie, its pid and its group's number are its own.
    if (group) {
      if (syscall(SYS_pidfd_send_signal, pidfd, 0, nullptr, 0) != 0 && errno == ESRCH) {
        return false;
      }
      if (::kill(-pid, signal) == 0) {
        return true;
      }
    }
    return syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0;
  }
  return ::kill(group ? -pid : pid, signal) == 0;
}

std::optional<int> LinuxKernel::open_process(Pid pid, Pid parent) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    return std::nullopt;
  }
  if (parent != 0 && parent_of(pid) != parent) {
    return std::nullopt;
  }
  return pidfd.release();
}

bool LinuxKernel::is_dead(int pidfd) {
  pollfd query{pidfd, POLLIN, 0};
  return retry([&] { return ::poll(&query, 1, 0); }) == 1;
}

std::optional<Ended> LinuxKernel::reap(Pid pid) {
  siginfo_t info{};
  if (retry([&] { return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG); }) != 0 ||
      info.si_pid == 0) {
    return std::nullopt;
  }
  return Ended{info.si_code, info.si_status};
}

Pid LinuxKernel::parent_of(Pid pid) {
  const std::string stat = read_proc(pid, "stat");
  const std::size_t end = stat.rfind(')');  // the name before it may hold anything
  if (end == std::string::npos || end + 2 >= stat.size()) {
    return 0;
  }
  return static_cast<Pid>(number_at(std::string_view(stat).substr(end + 2), 1));
}

bool LinuxKernel::runs_as(Pid pid, std::uint32_t uid) {
  const std::string status = read_proc(pid, "status");
  const std::size_t line = status.find("\nUid:");
  if (line == std::string::npos) {
    return false;
  }
  std::string_view ids = std::string_view(status).substr(line + 5);
  ids = ids.substr(0, ids.find('\n'));
  while (!ids.empty()) {
    ids.remove_prefix(1);  // the tab before each
    const auto id = take_number<std::uint32_t>(ids);
    if (!id || *id == uid) {
      return id.has_value();
    }
  }
  return false;
}

std::optional<int> LinuxKernel::own_program_unless(Pid pid) {
  struct stat ours {};
  struct stat theirs {};
  std::array<char, 32> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/exe", pid);
  if (stat("/proc/self/exe", &ours) != 0) {
    return std::nullopt;
  }
  if (pid != 0 && (stat(path.data(), &theirs) != 0 ||
                   (ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino))) {
    return std::nullopt;
  }
  const int program = ::open("/proc/self/exe", O_PATH | O_CLOEXEC);
  return program >= 0 ? std::optional<int>(program) : std::nullopt;
}

Pid LinuxKernel::own_pid() { return getpid(); }

Pid LinuxKernel::own_parent() { return getppid(); }

std::uint32_t LinuxKernel::own_uid() { return geteuid(); }

std::optional<MemoryUse> LinuxKernel::memory_of(Pid pid) {
  const std::string statm = read_proc(pid, "statm");
  if (statm.empty()) {
    return std::nullopt;
  }
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return MemoryUse{static_cast<std::uint64_t>(number_at(statm, 1)) * page};
}

std::optional<MemoryShares> LinuxKernel::shares_of(Pid pid) {
  const std::string text = read_proc(pid, "smaps_rollup");
  if (text.empty()) {
    return std::nullopt;
  }
  const auto kilobytes = [&text](std::string_view name) -> std::uint64_t {
    const std::size_t at = text.find(name);
    if (at == std::string::npos) {
      return 0;
    }
    const std::size_t digits = text.find_first_of("0123456789", at + name.size());
    return digits != std::string::npos ? number_of(std::string_view(text).substr(digits)) * 1024
                                       : 0;
  };
  return MemoryShares{kilobytes("\nPrivate_Clean:") + kilobytes("\nPrivate_Dirty:"),
                      kilobytes("\nShared_Clean:") + kilobytes("\nShared_Dirty:")};
}

Result<std::string> LinuxKernel::own_program_directory() {
  std::array<char, PATH_MAX> path{};
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (length <= 0) {
    return Error{errno, "readlink /proc/self/exe", ""};
  }
  const std::string_view whole(path.data(), static_cast<std::size_t>(length));
  return std::string(whole.substr(0, whole.rfind('/')));
}

std::optional<Duration> LinuxKernel::cpu_time_of(Pid pid) {
  const std::string stat = read_proc(pid, "stat");
  // The program's name, in brackets, may hold anything.
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) {
    return std::nullopt;
  }
  const std::string_view rest = std::string_view(stat).substr(name_end + 2);
  constexpr int kUserTicks = 11;
  const std::int64_t ticks = number_at(rest, kUserTicks) + number_at(rest, kUserTicks + 1);
  return Duration{
      ticks * (std::chrono::nanoseconds{std::chrono::seconds{1}}.count() / sysconf(_SC_CLK_TCK))};
}

Status LinuxKernel::set_nice(int level) {
  if (setpriority(PRIO_PROCESS, 0, level) != 0) {
    return Error{errno, "setpriority", ""};
  }
  return Ok{};
}

Status LinuxKernel::set_affinity(Pid pid, const std::vector<std::uint32_t>& cpus) {
  return os::set_affinity(pid, cpus);
}

void LinuxKernel::remove_file(const std::string& path, std::uint64_t device, std::uint64_t inode) {
  struct stat status {};
  if (lstat(path.c_str(), &status) == 0 && status.st_dev == device && status.st_ino == inode) {
    unlink(path.c_str());
  }
}

Result<std::string> LinuxKernel::current_directory() {
  std::array<char, PATH_MAX> path{};
  if (getcwd(path.data(), path.size()) == nullptr) {
    return Error{errno, "getcwd", ""};
  }
  return std::string(path.data());
}

Result<std::string> LinuxKernel::resolve_directory(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  if (realpath(path.c_str(), resolved.data()) == nullptr) {
    return Error{errno, "directory " + path, ""};
  }
  struct stat status {};
  if (stat(resolved.data(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    return Error{ENOTDIR, "directory " + path, ""};
  }
  return std::string(resolved.data());
}

Result<std::string> LinuxKernel::find_program(const std::string& name, const std::string& path,
                                              const std::string& directory) {
  const auto absolute = [&directory](const std::string& candidate) {
    return candidate.starts_with('/') || directory.empty() ? candidate
                                                           : directory + "/" + candidate;
  };
  if (name.find('/') != std::string::npos) {
    if (is_program(absolute(name))) {
      return name;
    }
    const std::string whole = plain_path(absolute(name));
    return make_error("Could not find " + name, access(whole.c_str(), F_OK) == 0
                                                    ? whole + " is no file"
                                                    : "there is no " + whole);
  }
  if (name.empty()) {
    return make_error("Could not find the program", "its name is empty");
  }
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find(':', begin), path.size());
    const std::string folder = path.substr(begin, end - begin);
    const std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (is_program(absolute(candidate)) && access(absolute(candidate).c_str(), X_OK) == 0) {
      return candidate;
    }
    begin = end + 1;
  }
  return make_error("Could not find " + name + " in PATH", "");
}

}  // namespace einhorn::os
