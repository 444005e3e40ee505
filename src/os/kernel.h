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
#include "os/bind_spec.h"
#include "os/cgroup.h"
#include "os/identity.h"

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
  std::int32_t taker = 0;    // the pid of the new one, written before `next`
  std::uint64_t events = 0;  // the number of the last event of the event stream
};

// A resource limit as setrlimit(2) has it; kNoLimit: none.
struct ResourceLimit {
  static constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
  int resource = 0;
  std::uint64_t soft = kNoLimit;
  std::uint64_t hard = kNoLimit;
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
  // Its standard output and standard error, whatever their numbers are; -1: the spawner's own.
  int output = -1;
  int error_output = -1;
  std::vector<std::string> cgroups;  // files "cgroup.procs" of the groups that it joins
  std::vector<int> closed;           // inherited descriptors that it does not get
  std::string connect_to;            // unix socket path that `connect_as` is connected to; "" none
  int connect_as = -1;
  bool own_group = true;
  bool sibling = true;  // its parent is the spawner's parent
  int parent_death_signal = 0;
  std::optional<int> nice;
  Identity identity;                  // `program` and `directory` are looked for in its root
  std::vector<ResourceLimit> limits;  // set last, so that they are the program's alone
  SpawnNote* note = nullptr;
  // Its bind and listen are told to whoever holds Spawned::notify (see os/intercept.h).
  bool intercept = false;
  bool allow_io_uring = false;
  Pid watcher = 0;  // this process and its descendants may look into it; 0: nobody in particular
  std::string pid_variable;  // "NAME=" whose value becomes the process's own pid ("LISTEN_PID=")
};

struct Spawned {
  Pid pid = 0;
  int pidfd = -1;               // the caller's to close
  int notify = -1;              // of an intercepted program; the caller's to close
  std::optional<Error> failed;  // it could not become the program and is gone; "exec /x": EACCES
  int nice_error = 0;           // errno, if it runs with the spawner's nice level
  std::vector<Error> unmet;  // what of its identity it does without: CPUs, I/O priority, OOM score
};

// A socket that somebody may connect to.
struct OpenedListener {
  int fd = -1;  // CLOEXEC; the caller's to close
  std::string address;
  std::uint16_t port = 0;
  std::uint64_t device = 0;  // of a unix socket's file; 0 where there is none
  std::uint64_t inode = 0;
};

// As in siginfo_t: code is CLD_EXITED, CLD_KILLED or CLD_DUMPED, status the exit code or signal.
struct Ended {
  int code = 0;
  int status = 0;
};

struct MemoryUse {
  std::uint64_t resident_bytes = 0;
};

// What a process has for itself, and what it has together with others, such as pages of a zygote.
struct MemoryShares {
  std::uint64_t private_bytes = 0;
  std::uint64_t shared_bytes = 0;
};

// Of a listening socket.
struct AcceptQueue {
  std::uint32_t waiting = 0;  // connections that nobody has accepted yet
  std::uint32_t limit = 0;    // how many may
};

// What one may want to know of a process. Each costs: resident memory the least, then CPU time and
// threads, descriptors, and by far the most proportional memory.
struct Wanted {
  bool resident = false;
  bool proportional = false;
  bool cpu = false;
  bool descriptors = false;
  bool threads = false;
};
// What was asked for and could be read.
struct Measured {
  std::optional<std::uint64_t> resident_bytes;
  std::optional<std::uint64_t> proportional_bytes;  // PSS
  std::optional<Duration> cpu;                      // of all its threads since its start
  std::optional<std::uint64_t> descriptors;
  std::optional<std::uint64_t> threads;
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
  // The same, and the message stays the next one. Descriptors in it are not shown.
  virtual Message peek(int socket) = 0;
  // From now on the kernel vouches for who sends what this socket receives (Message::sender).
  virtual Status ask_for_senders(int socket) = 0;
  virtual Transfer send(int socket, std::string_view text, std::span<const int> fds) = 0;
  // Two ends of a sequenced-packet connection; nonblocking, CLOEXEC; the caller's to close.
  virtual Result<std::pair<int, int>> socket_pair() = 0;
  // A pipe's read end, nonblocking, and its write end, blocking; CLOEXEC; the caller's to close.
  virtual Result<std::pair<int, int>> pipe() = 0;
  // A socket at a path where nothing is any more: a listening one, or one for datagrams that names
  // their senders. None: something is there. The descriptor is the caller's to close.
  virtual Result<std::optional<SocketMade>> remake_socket(const std::string& path, bool listening,
                                                          std::uint32_t mode,
                                                          const std::string& group) = 0;
  // As os/listeners.h. A host that is a name is looked up, which may take its time.
  virtual Result<std::vector<OpenedListener>> open_listeners(const BindSpec& spec, int backlog) = 0;
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
  // Looks at every page table of the process: a millisecond for each few hundred megabytes. None: it
  // is gone or may not be looked at.
  virtual std::optional<MemoryShares> shares_of(Pid pid) = 0;
  virtual std::optional<Duration> cpu_time_of(Pid pid) = 0;  // its children's not included
  // None: not a listening socket of a stream, or the kernel does not tell.
  virtual std::optional<AcceptQueue> accept_queue(int listener) = 0;
  // None: no such process, or it is dead.
  virtual std::optional<Measured> measure(Pid pid, const Wanted& wanted) = 0;

  virtual Status set_nice(int level) = 0;  // of this process
  // Puts a running process onto these CPUs.
  virtual Status set_affinity(Pid pid, const std::vector<std::uint32_t>& cpus) = 0;

  // Removes a file if it still is the one of that device and inode.
  virtual void remove_file(const std::string& path, std::uint64_t device, std::uint64_t inode) = 0;

  // -- control groups (os/cgroup.h): of a version that is known, with directories as paths
  virtual Status make_cgroup(const std::string& directory, const CgroupFiles& files) = 0;
  virtual bool remove_cgroup(const std::string& directory) = 0;  // false: somebody is in it
  virtual std::vector<std::string> list_cgroups(const std::string& directory) = 0;
  virtual std::optional<std::uint64_t> oom_kills(const std::string& directory) = 0;

  // -- the file system, for recording a version
  virtual Result<std::string> current_directory() = 0;
  virtual Result<std::string> own_program_directory() = 0;  // where our own executable lies
  virtual Result<std::string> resolve_directory(const std::string& path) = 0;
  // As a shell finds a program: by PATH unless there is a slash in it.
  virtual Result<std::string> find_program(const std::string& name, const std::string& path,
                                           const std::string& directory) = 0;
};

}  // namespace einhorn::os
