// What procfs says of a process that is looked at from time to time.
//
// The files are opened anew each time: a descriptor kept for each of a thousand workers would save
// the opening (docs/adr/0030-workers-kept-honest.md).
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <string_view>

#include "base/numbers.h"
#include "os/linux/linux_kernel.h"
#include "os/linux/retry.h"

namespace einhorn::os {
namespace {

using Path = std::array<char, 48>;

Path path_of(Pid pid, const char* name) {
  Path path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/%s", pid, name);
  return path;
}

template <std::size_t kBytes>
std::string_view read_file(Pid pid, const char* name, std::array<char, kBytes>& into) {
  const Path path = path_of(pid, name);
  const UniqueFd file(retry([&] { return ::open(path.data(), O_RDONLY | O_CLOEXEC); }));
  if (!file) {
    return {};
  }
  const ssize_t count = retry([&] { return ::read(file.get(), into.data(), into.size()); });
  return {into.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

// The next number of a text of words between blanks; takes it and `skip` words before it away.
std::uint64_t next_number(std::string_view& text, int skip = 0) {
  for (; skip >= 0; --skip) {
    const std::size_t word = text.find_first_not_of(' ');
    text.remove_prefix(word == std::string_view::npos ? text.size() : word);
    if (skip > 0) {
      text.remove_prefix(std::min(text.find(' '), text.size()));
    }
  }
  return take_number<std::uint64_t>(text).value_or(0);
}

std::uint64_t page_bytes() { return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)); }

// Behind the name, which may hold anything: state, ..., utime is the 12th word, stime the next,
// then after four more the number of threads, and after three more the resident pages.
bool read_stat(Pid pid, const Wanted& wanted, Measured& measured) {
  std::array<char, 1024> buffer{};
  std::string_view stat = read_file(pid, "stat", buffer);
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos || stat.size() < name_end + 3) {
    return false;
  }
  stat.remove_prefix(name_end + 2);
  if (stat.front() == 'Z' || stat.front() == 'X') {
    return false;
  }
  const std::uint64_t ticks = next_number(stat, 11);
  const std::uint64_t system = next_number(stat);
  const std::uint64_t threads = next_number(stat, 4);
  const std::uint64_t pages = next_number(stat, 3);
  if (wanted.cpu) {
    const auto per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
    measured.cpu = from_seconds(static_cast<double>(ticks + system) / per_second);
  }
  if (wanted.threads) {
    measured.threads = threads;
  }
  if (wanted.resident) {
    measured.resident_bytes = pages * page_bytes();
  }
  return true;
}

// Less work for the kernel than `stat`.
bool read_statm(Pid pid, Measured& measured) {
  std::array<char, 128> buffer{};
  std::string_view statm = read_file(pid, "statm", buffer);
  if (statm.empty()) {
    return false;
  }
  const std::uint64_t size = next_number(statm);
  if (size == 0) {
    return false;  // dead
  }
  measured.resident_bytes = next_number(statm) * page_bytes();
  return true;
}

std::optional<std::uint64_t> proportional_bytes(Pid pid) {
  constexpr std::string_view kKey = "\nPss:";
  constexpr std::uint64_t kKilobyte = 1024;
  std::array<char, 2048> buffer{};
  std::string_view rollup = read_file(pid, "smaps_rollup", buffer);
  const std::size_t at = rollup.find(kKey);
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  rollup.remove_prefix(at + kKey.size());
  return next_number(rollup) * kKilobyte;
}

// Since Linux 6.2 the folder's size; before it is 0.
std::optional<std::uint64_t> descriptor_count(Pid pid) {
  const Path path = path_of(pid, "fd");
  struct stat status {};
  if (stat(path.data(), &status) == 0 && status.st_size > 0) {
    return static_cast<std::uint64_t>(status.st_size);
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path.data()), closedir);
  if (!folder) {
    return std::nullopt;
  }
  std::uint64_t count = 0;
  while (const dirent* entry = readdir(folder.get())) {
    count += entry->d_name[0] != '.' ? 1U : 0U;
  }
  return count;
}

}  // namespace

std::optional<Measured> LinuxKernel::measure(Pid pid, const Wanted& wanted) {
  Measured measured;
  const bool cheap = wanted.resident && !wanted.cpu && !wanted.threads;
  if (!(cheap ? read_statm(pid, measured) : read_stat(pid, wanted, measured))) {
    return std::nullopt;
  }
  if (wanted.proportional) {
    measured.proportional_bytes = proportional_bytes(pid);
  }
  if (wanted.descriptors) {
    measured.descriptors = descriptor_count(pid);
  }
  return measured;
}

}  // namespace einhorn::os
