// What can be seen of a worker's processes in /proc: who they are, which of their descriptors are
// sockets or epoll sets, whether they do anything.
//
// All of it may have changed when it is used; what must not go wrong then is checked again there.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace einhorn::intercept {

// The process and its descendants. Cheap, where the kernel lists children.
[[nodiscard]] std::vector<pid_t> processes_of(pid_t worker);
// And whoever is in its process group. Looks at every process there is.
[[nodiscard]] std::vector<pid_t> group_of(pid_t worker);

struct EpollEntry {
  int epoll = -1;           // the set's number in the program
  int fd = -1;              // the number under which the socket was put in
  std::uint64_t inode = 0;  // of the socket
};

struct Holdings {
  std::vector<std::pair<int, std::uint64_t>> sockets;  // number, inode
  std::vector<EpollEntry> epoll_entries;               // of sockets in `wanted`
};
// `wanted`: inodes of sockets whose epoll entries are looked for. Empty if it can't be looked at.
[[nodiscard]] Holdings holdings_of(pid_t process, const std::set<std::uint64_t>& wanted);
// Pure: the entries in an epoll set's fdinfo.
[[nodiscard]] std::vector<EpollEntry> parse_epoll_entries(const std::string& text);

// The names in a directory that are numbers, at most so many; empty if it can't be read.
[[nodiscard]] std::vector<int> numbers_in(const std::string& path, std::size_t most = 100'000);
[[nodiscard]] std::vector<pid_t> tasks_of(pid_t process);
// Threads that do not sleep, each with the nanoseconds that it has been on a processor. Empty where
// the kernel does not tell.
[[nodiscard]] std::map<pid_t, std::uint64_t> awake_tasks_of(pid_t process);
// Whether it waits for connections to that socket: by an epoll set that has it, or in accept.
[[nodiscard]] bool waits_for(pid_t process, std::uint64_t inode);
// How many seccomp filters it is under; -1: nobody can say.
[[nodiscard]] long filters_of(pid_t process);

}  // namespace einhorn::intercept
