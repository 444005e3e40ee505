#include "os/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include "base/numbers.h"
#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::os {
namespace {

constexpr std::size_t kMostFile = 1u << 20u;
constexpr int kPeriod = 100'000;  // microseconds, of a limit on CPU time

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(by), text.size());
    if (end > 0) {
      parts.push_back(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

bool contains(const std::vector<std::string_view>& parts, std::string_view what) {
  return std::find(parts.begin(), parts.end(), what) != parts.end();
}

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned code = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, code, 8).ec == std::errc{}) {
      out.push_back(static_cast<char>(code));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

struct Mount {
  bool unified = false;
  std::string root;
  std::string point;
  std::vector<std::string_view> options;
};

std::vector<Mount> mounts_of(std::string_view mountinfo) {
  std::vector<Mount> mounts;
  for (const std::string_view line : split(mountinfo, '\n')) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) {
      continue;
    }
    const auto before = split(line.substr(0, dash), ' ');
    const auto behind = split(line.substr(dash + 3), ' ');
    if (before.size() < 5 || behind.size() < 3 || !behind[0].starts_with("cgroup")) {
      continue;
    }
    mounts.push_back(
        {behind[0] == "cgroup2", unescape(before[3]), unescape(before[4]), split(behind[2], ',')});
  }
  return mounts;
}

// The group that we are in, as a directory. A container may see only a part of the hierarchy.
std::string directory_in(const Mount& mount, std::string_view own) {
  if (mount.root != "/" && own.starts_with(mount.root)) {
    own.remove_prefix(mount.root.size());
  }
  return own.empty() || own == "/" ? mount.point : mount.point + std::string(own);
}

std::optional<std::string> read_file(const std::string& path) {
  const UniqueFd file(retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); }));
  if (!file) {
    return std::nullopt;
  }
  std::string text;
  std::array<char, 4096> buffer;
  while (text.size() < kMostFile) {
    const ssize_t count = retry([&] { return ::read(file.get(), buffer.data(), buffer.size()); });
    if (count < 0) {
      return std::nullopt;
    }
    if (count == 0) {
      break;
    }
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return text;
}

Status write_file(const std::string& path, std::string_view value) {
  const UniqueFd file(retry([&] { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC); }));
  if (!file || retry([&] { return ::write(file.get(), value.data(), value.size()); }) < 0) {
    return Error{errno, "write " + std::string(value) + " to " + path, ""};
  }
  return Ok{};
}

}  // namespace

std::vector<Controller> find_controllers(const std::vector<std::string>& wanted,
                                         std::string_view mountinfo, std::string_view own,
                                         const ReadFile& read) {
  const std::vector<Mount> mounts = mounts_of(mountinfo);
  std::vector<Controller> found;
  for (const std::string& name : wanted) {
    Controller controller{name, 0, "", "this kernel offers no such controller"};
    for (const std::string_view line : split(own, '\n')) {  // "4:cpu,cpuacct:/path", "0::/path"
      const std::size_t first = line.find(':');
      const std::size_t second =
          line.find(':', first == std::string_view::npos ? first : first + 1);
      if (second == std::string_view::npos) {
        continue;
      }
      const auto names = split(line.substr(first + 1, second - first - 1), ',');
      const bool unified = names.empty();
      if (!unified && !contains(names, name)) {
        continue;
      }
      for (const Mount& mount : mounts) {
        if (mount.unified != unified || (!unified && !contains(mount.options, name))) {
          continue;
        }
        const std::string directory = directory_in(mount, line.substr(second + 1));
        if (unified) {
          const std::string there = read(directory + "/cgroup.controllers").value_or("");
          std::string flat = there;
          std::replace(flat.begin(), flat.end(), '\n', ' ');
          if (!contains(split(flat, ' '), name)) {
            continue;
          }
        }
        controller = {name, unified ? 2 : 1, directory, ""};
        break;
      }
    }
    found.push_back(std::move(controller));
  }
  return found;
}

std::vector<Controller> find_controllers(const std::vector<std::string>& wanted) {
  const std::string mountinfo = read_file("/proc/self/mountinfo").value_or("");
  const std::string own = read_file("/proc/self/cgroup").value_or("");
  return find_controllers(wanted, mountinfo, own, read_file);
}

CgroupFiles limit_files(const Controller& controller, const CgroupLimits& limits) {
  const bool unified = controller.version == 2;
  if (controller.name == "memory" && limits.memory > 0) {
    const std::string bytes = std::to_string(limits.memory);
    if (unified) {
      return {{"memory.max", bytes}, {"memory.oom.group", "1"}};
    }
    return {{"memory.limit_in_bytes", bytes}};
  }
  if (controller.name == "cpu" && limits.cpu > 0) {
    const std::string quota = std::to_string(std::uint64_t{limits.cpu} * (kPeriod / 100));
    if (unified) {
      return {{"cpu.max", quota + " " + std::to_string(kPeriod)}};
    }
    return {{"cpu.cfs_period_us", std::to_string(kPeriod)}, {"cpu.cfs_quota_us", quota}};
  }
  if (controller.name == "pids" && limits.pids > 0) {
    return {{"pids.max", std::to_string(limits.pids)}};
  }
  return {};
}

Status delegate_cgroup(const std::string& directory, const std::string& main,
                       const std::vector<std::string>& controllers) {
  std::string all;
  for (const std::string& controller : controllers) {
    all += (all.empty() ? "+" : " +") + controller;
  }
  const std::string file = directory + "/cgroup.subtree_control";
  if (Status given = write_file(file, all); given || main.empty()) {
    return given;
  }
  // EBUSY: it has processes. Ours we can move.
  if (Status made = make_cgroup(main, {{"cgroup.procs", "0"}}); !made) {
    return made;
  }
  return write_file(file, all);
}

Status make_cgroup(const std::string& directory, const CgroupFiles& files) {
  constexpr mode_t kMode = 0755;
  const bool made = mkdir(directory.c_str(), kMode) == 0;
  if (!made && errno != EEXIST) {
    return Error{errno, "mkdir " + directory, ""};
  }
  for (const auto& [name, value] : files) {
    if (Status written = write_file(directory + "/" + name, value); !written) {
      if (made) {
        rmdir(directory.c_str());
      }
      return written;
    }
  }
  return Ok{};
}

bool remove_cgroup(const std::string& directory) {
  return rmdir(directory.c_str()) == 0 || errno == ENOENT;
}

std::vector<std::string> list_cgroups(const std::string& directory) {
  std::vector<std::string> names;
  DIR* const open = opendir(directory.c_str());
  if (open == nullptr) {
    return names;
  }
  while (const dirent* entry = readdir(open)) {
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
      names.emplace_back(entry->d_name);
    }
  }
  closedir(open);
  return names;
}

std::optional<std::uint64_t> parse_oom_kills(std::string_view text) {
  constexpr std::string_view kKey = "oom_kill ";
  for (const std::string_view line : split(text, '\n')) {
    if (line.starts_with(kKey)) {
      return number_of(line.substr(kKey.size()));
    }
  }
  return std::nullopt;
}

std::optional<std::uint64_t> oom_kills(const std::string& directory) {
  for (const char* name : {"/memory.events", "/memory.oom_control"}) {
    if (const std::optional<std::string> text = read_file(directory + name)) {
      return parse_oom_kills(*text);
    }
  }
  return std::nullopt;
}

}  // namespace einhorn::os
