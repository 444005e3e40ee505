// The files a pool leaves in the file system: lock, pid file, command socket.
//
// They may lie in a directory that everybody can write to. A path that is a link, or a file that is
// not ours, is refused and never followed, emptied or removed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "os/unique_fd.h"

namespace einhorn::os {

struct SocketFile {
  UniqueFd fd;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

// Locks the file (made 0600, left behind) for as long as the descriptor lives.
// Errors: somebody else holds it, it is not ours, it can't be made.
[[nodiscard]] Result<UniqueFd> lock_file(const std::string& path);

// Whether somebody listens at that path: a connected stream socket then, else none.
// Errors: something that is no socket is there; it is neither our own user's nor root's.
[[nodiscard]] Result<UniqueFd> connect_if_alive(const std::string& path);

// A listening stream socket; a dead socket file of ours there is replaced.
[[nodiscard]] Result<SocketFile> open_command_socket(const std::string& path, std::uint32_t mode,
                                                     const std::string& group);
// A datagram socket that learns its senders' pids; whatever socket file of ours is there is
// replaced.
[[nodiscard]] Result<SocketFile> open_notify_socket(const std::string& path, std::uint32_t mode,
                                                    const std::string& group);

// Whether a socket could be made there, as far as can be told without touching anything.
[[nodiscard]] Status check_socket_path(const std::string& path);

// The pid without a newline, 0644. Errors: the path is a link or a file that is not ours.
[[nodiscard]] Status write_pid_file(const std::string& path, Pid pid);
void remove_file(const std::string& path);

// Descriptors from 3 on that were inherited and would be by a program that we exec.
[[nodiscard]] std::vector<std::int32_t> inherited_descriptors();

// Reads and closes it, waiting for a writer if there is one, whatever the descriptor's flags.
// Errors: more than limits::kMaxSnapshotBytes; a writer that keeps silent for a minute.
[[nodiscard]] Result<std::string> read_to_end(int fd);

// 0, 1 and 2 are open afterwards.
void open_standard_descriptors();

// Whether this process has more rights than whoever started it: the program's file is set-user-ID
// or set-group-ID.
[[nodiscard]] bool is_set_user_id();

}  // namespace einhorn::os
