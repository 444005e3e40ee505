#include "intercept/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "base/numbers.h"
#include "os/unique_fd.h"

namespace einhorn::intercept {
namespace {

constexpr std::size_t kMostOfAFile = 1024 * 1024;
constexpr std::size_t kMostProcesses = 4096;
constexpr int kMostDepth = 64;

std::string task_path(pid_t pid, std::string_view file) {
  return "/proc/" + std::to_string(pid) + "/" + std::string(file);
}

std::string read_file(const std::string& path) {
  std::string text;
  const os::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> buffer;
  ssize_t count = 0;
  while (fd && text.size() < kMostOfAFile &&
         (count = read(fd.get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return text;
}

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

// Cuts off what stands before the next word.
void skip_blanks(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
}

struct Stat {
  char state = 0;  // 0: it is gone
  pid_t parent = 0;
  pid_t group = 0;
};

Stat read_stat(const std::string& path) {
  Stat stat;
  const std::string text = read_file(path);
  // Behind the name, which may hold anything.
  const std::size_t end = text.rfind(')');
  std::string_view rest =
      std::string_view(text).substr(end == std::string::npos ? text.size() : end + 1);
  skip_blanks(rest);
  if (rest.empty()) {
    return stat;
  }
  const char state = rest.front();
  rest.remove_prefix(1);
  skip_blanks(rest);
  const auto parent = take_number<pid_t>(rest);
  skip_blanks(rest);
  const auto group = take_number<pid_t>(rest);
  return parent && group ? Stat{state, *parent, *group} : stat;
}

void add_children(pid_t process, std::set<pid_t>& found) {
  for (const pid_t task : tasks_of(process)) {
    const std::string text =
        read_file(task_path(process, "task/" + std::to_string(task) + "/children"));
    const char* at = text.c_str();
    char* end = nullptr;
    for (long child = std::strtol(at, &end, 10); end != at; child = std::strtol(at, &end, 10)) {
      at = end;
      const auto pid = static_cast<pid_t>(child);
      if (found.size() < kMostProcesses && found.insert(pid).second) {
        add_children(pid, found);
      }
    }
  }
}

}  // namespace

std::vector<int> numbers_in(const std::string& path, std::size_t most) {
  std::vector<int> numbers;
  const std::unique_ptr<DIR, CloseDirectory> directory(opendir(path.c_str()));
  while (directory && numbers.size() < most) {
    const dirent* entry = readdir(directory.get());
    if (entry == nullptr) {
      break;
    }
    if (const auto number = whole_number<int>(static_cast<const char*>(entry->d_name))) {
      numbers.push_back(*number);
    }
  }
  return numbers;
}

std::vector<pid_t> tasks_of(pid_t process) { return numbers_in(task_path(process, "task")); }

std::vector<pid_t> processes_of(pid_t worker) {
  std::set<pid_t> found{worker};
  add_children(worker, found);
  return {found.begin(), found.end()};
}

std::vector<pid_t> group_of(pid_t worker) {
  std::map<pid_t, Stat> all;
  for (const int pid : numbers_in("/proc")) {
    if (const Stat stat = read_stat(task_path(pid, "stat")); stat.state != 0) {
      all[pid] = stat;
    }
  }
  std::vector<pid_t> found;
  for (const auto& [pid, stat] : all) {
    pid_t above = pid;
    for (int depth = 0; depth < kMostDepth && above > 1 && above != worker; ++depth) {
      const auto next = all.find(above);
      above = next != all.end() ? next->second.parent : 0;
    }
    if (above == worker || stat.group == worker) {
      found.push_back(pid);
    }
  }
  return found;
}

std::vector<EpollEntry> parse_epoll_entries(const std::string& text) {
  std::vector<EpollEntry> entries;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    constexpr std::string_view kNumber = "tfd:";
    constexpr std::string_view kInode = "ino:";
    const std::size_t where = line.find(kInode);
    if (!line.starts_with(kNumber) || where == std::string_view::npos) {
      continue;
    }
    std::string_view number = line.substr(kNumber.size());
    std::string_view hexadecimal = line.substr(where + kInode.size());
    skip_blanks(number);
    const auto fd = take_number<int>(number);
    const auto inode = take_number<std::uint64_t>(hexadecimal, 16);
    if (fd && inode) {
      entries.push_back({-1, *fd, *inode});
    }
  }
  return entries;
}

Holdings holdings_of(pid_t process, const std::set<std::uint64_t>& wanted) {
  Holdings holdings;
  for (const int number : numbers_in(task_path(process, "fd"))) {
    std::array<char, 64> target{};
    const ssize_t length = readlink(task_path(process, "fd/" + std::to_string(number)).c_str(),
                                    target.data(), target.size() - 1);
    if (length <= 0) {
      continue;
    }
    constexpr std::string_view kSocket = "socket:[";
    const std::string_view held(target.data(), static_cast<std::size_t>(length));
    if (held.starts_with(kSocket)) {
      holdings.sockets.emplace_back(number, number_of(held.substr(kSocket.size())));
    } else if (!wanted.empty() && held == "anon_inode:[eventpoll]") {
      for (EpollEntry entry :
           parse_epoll_entries(read_file(task_path(process, "fdinfo/" + std::to_string(number))))) {
        if (wanted.contains(entry.inode)) {
          entry.epoll = number;
          holdings.epoll_entries.push_back(entry);
        }
      }
    }
  }
  return holdings;
}

std::map<pid_t, std::uint64_t> awake_tasks_of(pid_t process) {
  std::map<pid_t, std::uint64_t> awake;
  for (const pid_t task : tasks_of(process)) {
    const std::string directory = task_path(process, "task/" + std::to_string(task));
    const Stat stat = read_stat(directory + "/stat");
    if (stat.state == 'R' || stat.state == 'D') {
      if (const std::string text = read_file(directory + "/schedstat"); !text.empty()) {
        awake[task] = std::strtoull(text.c_str(), nullptr, 10);
      }
    }
  }
  return awake;
}

bool waits_for(pid_t process, std::uint64_t inode) {
  const Holdings holdings = holdings_of(process, {inode});
  if (!holdings.epoll_entries.empty()) {
    return true;
  }
  const std::vector<pid_t> tasks = tasks_of(process);
  return std::any_of(tasks.begin(), tasks.end(), [&](pid_t task) {
    const std::string text = read_file(task_path(task, "syscall"));  // 288 0x3 0x7ffd3c5a ...
    constexpr std::string_view kHexadecimal = " 0x";
    std::string_view call = text;
    const long number = take_number<long>(call).value_or(-1);
    if ((number != SYS_accept && number != SYS_accept4) || !call.starts_with(kHexadecimal)) {
      return false;
    }
    call.remove_prefix(kHexadecimal.size());
    const auto fd = take_number<std::uint64_t>(call, 16);
    return fd &&
           std::any_of(holdings.sockets.begin(), holdings.sockets.end(), [&](const auto& held) {
             return held.first == static_cast<int>(*fd) && held.second == inode;
           });
  });
}

long filters_of(pid_t process) {
  const std::string text = read_file(task_path(process, "status"));
  const std::size_t at = text.find("\nSeccomp_filters:");
  return at == std::string::npos ? -1 : std::strtol(text.c_str() + at + 17, nullptr, 10);
}

}  // namespace einhorn::intercept
