// The kernel, as the master sees it: every system call it makes is one of these verbs.
//
// There are two implementations, and the same contract tests run against both: LinuxKernel, and the
// simulated one of tests/sim. Descriptors are plain numbers here; who owns one is said at each
// verb. EINTR never shows. What is ordinary (would block, end of file, gone) is part of the value;
// an Error is a failure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "base/result.h"

namespace einhorn::os {

// --- waiting ------------------------------------------------------------------------------------
struct Interest {
  bool read = true;
  bool write = false;
};
struct Ready {
  std::uint64_t token = 0;  // as given to watch()
  bool readable = false;    // also: end of file, error
  bool writable = false;
};

// --- bytes --------------------------------------------------------------------------------------
struct Transfer {
  enum class Kind { kDone, kWouldBlock, kClosed };
  Kind kind = Kind::kDone;
  std::size_t bytes = 0;
};

struct Peer {
  Pid pid = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

struct Accepted {
  int fd = -1;  // -1: nobody waits. Nonblocking, CLOEXEC; the caller's to close
  Peer peer;
};

// A message of a datagram or sequenced-packet socket.
struct Message {
  Transfer::Kind kind = Transfer::Kind::kDone;
  std::string text;
  std::vector<int> fds;  // the caller's to close
  Peer sender;           // as far as the kernel vouches for it; pid 0: it does not
};

// A socket of the file system.
struct SocketMade {
  int fd = -1;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

// --- processes ----------------------------------------------------------------------------------
struct DescriptorMove {
  int from = -1;
  int to = -1;
};

// A page shared between a master and its guard's next master. `epoch` is written before the spawn,
// and the kernel itself writes `pid` before the new process runs its first instruction: after
// a master's sudden death no child is unknown.
struct SpawnNote {
  std::uint64_t magic = 0;
  std::uint64_t epoch = 0;
  std::int32_t pid = 0;
  std::int32_t slot = 0;
  // A hand-off ends by one of these, set once, atomically, by whoever comes first: so it is decided
  // who goes on even if the guard dies in the middle of it.
  enum Next : std::uint32_t { kNobodyYet, kTheNewMaster, kTheOldMaster };
  std::uint32_t next = kNobodyYet;
  std::int32_t taker = 0;  // the pid of the new one, written before `next`
};

struct SpawnSpec {
  std::string program;                 // path, already resolved
  std::vector<std::string> arguments;  // argv, the 0th included
  std::vector<std::string> environment;
  std::string directory;  // "": the spawner's own
  // What it gets besides 0, 1, 2 and what the spawner inherited. No `from` is another one's `to`.
  std::vector<DescriptorMove> descriptors;
  // Every number to be passed or inherited lies below this one. The rest of the spawner's table is
  // not even copied, so that a spawn's cost does not grow with the descriptors that the spawner has
  // open.
  int keep_below = 256;
  std::vector<int> closed;  // inherited descriptors that it does not get
  std::string connect_to;   // unix socket path that `connect_as` is connected to; "" none
  int connect_as = -1;
  bool own_group = true;
  bool sibling = true;  // its parent is the spawner's parent
  int parent_death_signal = 0;
  std::optional<int> nice;
  SpawnNote* note = nullptr;
  // Its bind and listen are told to whoever holds Spawned::notify (see os/intercept.h).
  bool intercept = false;
  bool allow_io_uring = false;
  Pid watcher = 0;           // this process and its descendants may look into it
  std::string pid_variable;  // "NAME=" whose value becomes the process's own pid ("LISTEN_PID=")
};

struct Spawned {
  Pid pid = 0;
  int pidfd = -1;               // the caller's to close
  int notify = -1;              // of an intercepted program; the caller's to close
  std::optional<Error> failed;  // it could not become the program and is gone; "exec /x": EACCES
  int nice_error = 0;           // errno, if it runs with the spawner's nice level
};

// As in siginfo_t: code is CLD_EXITED, CLD_KILLED or CLD_DUMPED, status the exit code or signal.
struct Ended {
  int code = 0;
  int status = 0;
};

struct MemoryUse {
  std::uint64_t resident_bytes = 0;
};

class Kernel {
 public:
  Kernel() = default;
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  virtual ~Kernel() = default;

  // -- time
  virtual Instant now() = 0;
  virtual WallOffset wall_offset() = 0;

  // -- waiting: until something is ready or the deadline has come; none waits for ever.
  virtual std::size_t wait(std::span<Ready> ready, std::optional<Instant> deadline) = 0;
  virtual Status watch(int fd, std::uint64_t token, Interest interest) = 0;  // add or change
  virtual void unwatch(int fd) = 0;

  // -- sockets and files
  virtual Result<Accepted> accept(int listener) = 0;
  virtual Transfer read(int fd, std::span<char> into) = 0;
  virtual Transfer write(int fd, std::string_view bytes) = 0;
  virtual Message receive(int socket) = 0;
  virtual Transfer send(int socket, std::string_view text, std::span<const int> fds) = 0;
  // Two ends of a sequenced-packet connection; nonblocking, CLOEXEC; the caller's to close.
  virtual Result<std::pair<int, int>> socket_pair() = 0;
  // A socket at a path where nothing is any more: a listening one, or one for datagrams that names
  // their senders. None: something is there. The descriptor is the caller's to close.
  virtual Result<std::optional<SocketMade>> remake_socket(const std::string& path, bool listening,
                                                          std::uint32_t mode,
                                                          const std::string& group) = 0;
  virtual void close(int fd) = 0;
  // The same descriptor under a number of at least `least`, CLOEXEC; the old number is closed.
  virtual Result<int> raise(int fd, int least) = 0;
  // One whole line to a log, or nothing: never waits for a reader. At most PIPE_BUF bytes.
  virtual Transfer write_line(int fd, std::string_view line) = 0;
  // Appending, CLOEXEC, made 0640. Errors: also what os/own_file.h refuses.
  virtual Result<int> open_log(const std::string& path) = 0;

  // -- memory files: the snapshot
  virtual Result<int> create_memory(const char* name) = 0;
  virtual Status write_at(int fd, std::uint64_t offset, std::string_view bytes) = 0;
  virtual Result<std::string> read_all(int fd) = 0;
  virtual Result<SpawnNote*> map_note(int fd) = 0;  // the first page; zeroes if it was empty
  virtual void unmap_note(SpawnNote* note) = 0;

  // -- processes
  virtual Result<Spawned> spawn(const SpawnSpec& spec) = 0;
  // To a process by its pidfd (-1: by pid), or to its whole group. False: it is gone.
  virtual bool signal(int pidfd, Pid pid, int signal, bool group) = 0;
  // A pidfd of a process whose parent is `parent` (0: anybody's). None: no such process. The
  // caller's to close.
  virtual std::optional<int> open_process(Pid pid, Pid parent) = 0;
  // Whether a process is dead, by its pidfd; somebody else may still have to reap it.
  virtual bool is_dead(int pidfd) = 0;
  // How a child of our own ended, once it is dead; reaps it. None: not dead, or not our child.
  virtual std::optional<Ended> reap(Pid pid) = 0;
  virtual Pid parent_of(Pid pid) = 0;  // 0: no such process
  // Whether that user is one of a process's (real, effective, saved). False: no such process.
  virtual bool runs_as(Pid pid, std::uint32_t uid) = 0;
  // Our own executable, as a descriptor to execute it by; none if `pid` runs the same one (pid 0:
  // in any case). The caller's to close.
  virtual std::optional<int> own_program_unless(Pid pid) = 0;
  virtual Pid own_pid() = 0;
  virtual Pid own_parent() = 0;
  virtual std::uint32_t own_uid() = 0;
  virtual std::optional<MemoryUse> memory_of(Pid pid) = 0;

  virtual Status set_nice(int level) = 0;  // of this process

  // Removes a file if it still is the one of that device and inode.
  virtual void remove_file(const std::string& path, std::uint64_t device, std::uint64_t inode) = 0;

  // -- the file system, for recording a version
  virtual Result<std::string> current_directory() = 0;
  virtual Result<std::string> resolve_directory(const std::string& path) = 0;
  // As a shell finds a program: by PATH unless there is a slash in it.
  virtual Result<std::string> find_program(const std::string& name, const std::string& path,
                                           const std::string& directory) = 0;
};

}  // namespace einhorn::os
