// The kernel as one simulated master sees it: its own descriptor table and its own epoll over the
// machine that all share.
//
// No verb waits. `wait` gives what is ready; when nothing is and the deadline has not come it
// throws Park, which unwinds the master's turn before it has done anything: the scheduler turns it
// again when there is something to do. Only while a master is being created is the rest of the
// machine run from inside `wait`.
//
// A master can be killed at any verb: `strike_in(n)` makes the n-th step from now the last one. The
// exception that ends it (Killed) is caught by whoever turned the master; after that every verb
// does nothing, so that the master's destructors change nothing any more.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "os/kernel.h"
#include "sim/files.h"
#include "sim/process.h"
#include "sim/world.h"

namespace einhorn::sim {

struct Park {
  std::optional<Instant> deadline;
};
struct Killed {};

class SimulatedKernel;

// Why no program can be started with that, if so: arguments or environment that are too long.
[[nodiscard]] std::optional<Error> refusal(const os::SpawnSpec& spec);

// What a kernel needs of the rest of the simulation.
class Host {
 public:
  Host() = default;
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  virtual ~Host() = default;

  // Starts a program on behalf of that master.
  virtual Result<os::Spawned> start_program(SimulatedKernel& by, const os::SpawnSpec& spec) = 0;
  // The master sends a signal; null: to a number that no process has.
  virtual void on_master_signals(SimulatedKernel& by, const ProcessPtr& to, int signal,
                                 bool by_pidfd) = 0;
  // The master answers a client.
  virtual void on_master_writes(SimulatedKernel& by, std::string_view bytes) = 0;
  // The master reads the snapshot that it was given.
  virtual void on_master_reads(std::string_view snapshot) = 0;
  // The master has to die here and now, killed or by an abort of its own.
  virtual void on_strike(SimulatedKernel& at) = 0;
  // Runs the machine until something is ready for that kernel, it is dead, or the deadline has
  // come.
  virtual void run_until_ready(SimulatedKernel& kernel, std::optional<Instant> deadline) = 0;
  // The master asks a zygote for a worker: for which?
  virtual WorkerId worker_asked_for(SimulatedKernel& by, std::string_view order) = 0;
  // A new version of the program: where it is.
  virtual Result<std::string> deploy() = 0;
};

class SimulatedKernel final : public os::Kernel {
 public:
  SimulatedKernel(World& world, Host& host, ProcessPtr self);
  ~SimulatedKernel() override;

  // --- for the simulation
  [[nodiscard]] const ProcessPtr& process() const { return self_; }
  int adopt(FilePtr file, int at_least = 3);
  [[nodiscard]] FilePtr file(int fd) const;  // null: none
  [[nodiscard]] bool anything_ready() const;
  [[nodiscard]] int open_of(FileKind kind) const;
  // Which ones, for people.
  [[nodiscard]] std::string describe(FileKind kind) const;
  // The one of that kind that was made last; null: none is open. Of memories, only snapshots.
  [[nodiscard]] FilePtr newest(FileKind kind) const;
  [[nodiscard]] std::size_t open() const { return files_.size(); }
  void set_creating(bool creating) { creating_ = creating; }
  // Descriptors that are not open are errors, as of the real kernel; else an invariant does not
  // hold: no master has a reason to try.
  void set_forgiving() { forgiving_ = true; }
  void strike_in(std::uint64_t steps) { strike_in_ = steps; }
  // Everything it has is closed, and every verb does nothing from now on.
  void die();
  [[nodiscard]] bool dead() const { return dead_; }
  // The process is leaving by itself: closing in any order is fine.
  void set_leaving() {
    leaving_ = true;
    strike_in_ = 0;
  }

  // --- os::Kernel
  Instant now() override { return world_.now(); }
  WallOffset wall_offset() override { return world_.wall; }
  std::size_t wait(std::span<os::Ready> ready, std::optional<Instant> deadline) override;
  Status watch(int fd, std::uint64_t token, os::Interest interest) override;
  void unwatch(int fd) override;
  Result<os::Accepted> accept(int listener) override;
  os::Transfer read(int fd, std::span<char> into) override;
  os::Transfer write(int fd, std::string_view bytes) override;
  os::Message receive(int socket) override;
  os::Message peek(int socket) override;
  Status ask_for_senders(int socket) override;
  os::Transfer send(int socket, std::string_view text, std::span<const int> fds) override;
  Result<std::pair<int, int>> socket_pair() override;
  Result<std::pair<int, int>> pipe() override;
  void close(int fd) override;
  Result<int> raise(int fd, int least) override;
  os::Transfer write_line(int fd, std::string_view line) override;
  Result<int> open_log(const std::string& path) override;
  Result<int> create_memory(const char* name) override;
  Status write_at(int fd, std::uint64_t offset, std::string_view bytes) override;
  Result<std::string> read_all(int fd) override;
  Result<os::SpawnNote*> map_note(int fd) override;
  void unmap_note(os::SpawnNote* note) override;
  Result<os::Spawned> spawn(const os::SpawnSpec& spec) override;
  bool signal(int pidfd, Pid pid, int signal, bool group) override;
  std::optional<int> open_process(Pid pid, Pid parent) override;
  bool is_dead(int pidfd) override;
  std::optional<os::Ended> reap(Pid pid) override;
  Pid parent_of(Pid pid) override;
  bool runs_as(Pid pid, std::uint32_t uid) override;
  Pid own_pid() override { return self_->pid; }
  Pid own_parent() override { return self_->parent; }
  std::uint32_t own_uid() override { return 0; }
  std::optional<os::MemoryUse> memory_of(Pid pid) override;
  std::optional<os::MemoryShares> shares_of(Pid pid) override;
  Result<std::string> own_program_directory() override { return std::string("/usr/bin"); }
  std::optional<Duration> cpu_time_of(Pid pid) override;
  std::optional<os::AcceptQueue> accept_queue(int listener) override;
  Status make_cgroup(const std::string& directory, const os::CgroupFiles& files) override;
  bool remove_cgroup(const std::string& directory) override;
  std::vector<std::string> list_cgroups(const std::string& directory) override;
  std::optional<std::uint64_t> oom_kills(const std::string& /*directory*/) override { return 0; }
  std::optional<os::Measured> measure(Pid pid, const os::Wanted& wanted) override;
  std::optional<int> own_program_unless(Pid pid) override;
  Status set_nice(int /*level*/) override { return Ok{}; }
  Status set_affinity(Pid /*pid*/, const std::vector<std::uint32_t>& /*cpus*/) override {
    return Ok{};
  }
  Result<std::vector<os::OpenedListener>> open_listeners(const os::BindSpec& spec,
                                                         int backlog) override;
  Result<std::optional<os::SocketMade>> remake_socket(const std::string& path, bool listening,
                                                      std::uint32_t mode,
                                                      const std::string& group) override;
  void remove_file(const std::string& path, std::uint64_t device, std::uint64_t inode) override;
  Result<std::string> current_directory() override { return std::string("/"); }
  Result<std::string> resolve_directory(const std::string& path) override;
  Result<std::string> find_program(const std::string& name, const std::string& path,
                                   const std::string& directory) override;

 private:
  struct Watch {
    std::uint64_t token = 0;
    os::Interest interest;
  };

  void step();  // maybe the last one
  void check_spinning();
  void act(const char* verb);  // what a frozen master must not
  template <typename T>
  std::shared_ptr<T> get(int fd, const char* verb);
  [[nodiscard]] bool is_ready(int fd, const Watch& watch) const;

  World& world_;
  Host& host_;
  ProcessPtr self_;
  std::map<int, FilePtr> files_;
  std::map<int, Watch> watches_;
  std::vector<std::pair<os::SpawnNote*, std::shared_ptr<Memory>>> mapped_;
  std::uint64_t strike_in_ = 0;  // 0: not planned
  std::uint64_t steps_ = 0;
  std::uint64_t steps_at_wait_ = 0;
  Instant waited_at_;
  int idle_waits_ = 0;  // in a row, with nothing ready and nothing done since the one before
  bool creating_ = false;
  bool leaving_ = false;
  bool dead_ = false;
  bool has_read_ = false;  // the snapshot
  bool frozen_ = false;    // it said so, and the guard has not let it go on
  bool forgiving_ = false;
};

template <typename T>
std::shared_ptr<T> SimulatedKernel::get(int fd, const char* verb) {
  auto found = std::dynamic_pointer_cast<T>(file(fd));
  world_.expect(found != nullptr || forgiving_, "descriptors",
                std::string(verb) + " on descriptor " + std::to_string(fd) +
                    ", which is closed or of another kind");
  return found;
}

}  // namespace einhorn::sim
