#include "os/cpus.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/numbers.h"
#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::os {
namespace {

// The beginning of a small file; "" if there is none.
std::string read_small(const std::string& path) {
  const UniqueFd fd(retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); }));
  std::array<char, 8192> text{};
  std::size_t length = 0;
  while (fd && length < text.size()) {
    const ssize_t got =
        retry([&] { return ::read(fd.get(), text.data() + length, text.size() - length); });
    if (got <= 0) {
      break;
    }
    length += static_cast<std::size_t>(got);
  }
  return {text.data(), length};
}

// Takes the next word, up to white space, from the front.
std::string_view next_word(std::string_view& text) {
  const std::size_t end = std::min(text.find_first_of(" \n"), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

std::optional<double> number(std::string_view word) {
  const auto value = whole_number<double>(word);
  return value && *value > 0 ? value : std::nullopt;
}

// Of one cgroup's folder; none: it has no quota.
std::optional<double> quota_of(const std::string& folder, bool second_version) {
  std::string text = second_version ? read_small(folder + "/cpu.max")
                                    : read_small(folder + "/cpu.cfs_quota_us") + " " +
                                          read_small(folder + "/cpu.cfs_period_us");
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::string_view rest = text;
  const std::optional<double> quota = number(next_word(rest));
  while (rest.starts_with(' ')) {
    rest.remove_prefix(1);
  }
  const std::optional<double> period = number(next_word(rest));
  return quota && period ? std::optional(*quota / *period) : std::nullopt;
}

void take_less(std::optional<double>& least, std::optional<double> other) {
  if (other && (!least || *other < *least)) {
    least = other;
  }
}

// The cgroup at `path` and all around it. In a container without a cgroup namespace the path is the
// host's and is not there: then the mount's root is our own cgroup.
void look_at(std::optional<double>& least, const std::string& mount, std::string path,
             bool second_version) {
  while (path.size() > 1) {
    take_less(least, quota_of(mount + path, second_version));
    path.resize(std::max<std::size_t>(path.rfind('/'), 0));
  }
  take_less(least, quota_of(mount, second_version));
}

bool names_cpu(std::string_view controllers) {
  while (!controllers.empty()) {
    const std::size_t end = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, end) == "cpu") {
      return true;
    }
    controllers.remove_prefix(std::min(end + 1, controllers.size()));
  }
  return false;
}

}  // namespace

std::optional<double> cgroup_cpus(const std::string& root) {
  const std::string memberships = read_small(root + "/proc/self/cgroup");
  const std::string mounts = root + "/sys/fs/cgroup";
  std::optional<double> least;
  std::string_view rest = memberships;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) {
      continue;
    }
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string path(line.substr(second + 1));
    if (path.find("/..") != std::string::npos) {
      continue;  // outside of our cgroup namespace
    }
    if (controllers.empty()) {
      look_at(least, mounts, path, true);
      look_at(least, mounts + "/unified", path, true);
    } else if (names_cpu(controllers)) {
      look_at(least, mounts + "/" + std::string(controllers), path, false);
      look_at(least, mounts + "/cpu", path, false);
    }
  }
  return least;
}

std::uint32_t usable_cpus() {
  // Machines with more CPUs than the usual set has room for answer EINVAL to a smaller one.
  constexpr int kMostCpus = 16 * 1024;
  cpu_set_t* set = CPU_ALLOC(kMostCpus);
  std::uint32_t count = 1;
  if (set != nullptr) {
    const std::size_t bytes = CPU_ALLOC_SIZE(kMostCpus);
    CPU_ZERO_S(bytes, set);
    if (sched_getaffinity(0, bytes, set) == 0) {
      count = static_cast<std::uint32_t>(std::max(1, CPU_COUNT_S(bytes, set)));
    }
    CPU_FREE(set);
  }
  if (const std::optional<double> quota = cgroup_cpus()) {
    count = std::min(count, static_cast<std::uint32_t>(std::max(1.0, std::ceil(*quota - 1e-6))));
  }
  return count;
}

}  // namespace einhorn::os
