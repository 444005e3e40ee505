// The real kernel: epoll, pidfd, clone3, memfd, procfs.
#pragma once

#include <array>
#include <memory>
#include <utility>

#include "os/kernel.h"
#include "os/unique_fd.h"

namespace einhorn::os {

class LinuxKernel final : public Kernel {
 public:
  // Errors: no epoll descriptor to be had.
  [[nodiscard]] static Result<std::unique_ptr<LinuxKernel>> create();
  ~LinuxKernel() override;

  Instant now() override;
  WallOffset wall_offset() override;
  std::size_t wait(std::span<Ready> ready, std::optional<Instant> deadline) override;
  Status watch(int fd, std::uint64_t token, Interest interest) override;
  void unwatch(int fd) override;
  Result<Accepted> accept(int listener) override;
  Transfer read(int fd, std::span<char> into) override;
  Transfer write(int fd, std::string_view bytes) override;
  Message receive(int socket) override;
  Message peek(int socket) override;
  Status ask_for_senders(int socket) override;
  Transfer send(int socket, std::string_view text, std::span<const int> fds) override;
  Result<std::pair<int, int>> socket_pair() override;
  Result<std::pair<int, int>> pipe() override;
  Result<std::optional<SocketMade>> remake_socket(const std::string& path, bool listening,
                                                  std::uint32_t mode,
                                                  const std::string& group) override;
  Result<std::vector<OpenedListener>> open_listeners(const BindSpec& spec, int backlog) override;
  void close(int fd) override;
  Result<int> raise(int fd, int least) override;
  Transfer write_line(int fd, std::string_view line) override;
  Result<int> open_log(const std::string& path) override;
  Result<int> create_memory(const char* name) override;
  Status write_at(int fd, std::uint64_t offset, std::string_view bytes) override;
  Result<std::string> read_all(int fd) override;
  Result<SpawnNote*> map_note(int fd) override;
  void unmap_note(SpawnNote* note) override;
  Result<Spawned> spawn(const SpawnSpec& spec) override;
  bool signal(int pidfd, Pid pid, int signal, bool group) override;
  std::optional<int> open_process(Pid pid, Pid parent) override;
  bool is_dead(int pidfd) override;
  std::optional<Ended> reap(Pid pid) override;
  Pid parent_of(Pid pid) override;
  bool runs_as(Pid pid, std::uint32_t uid) override;
  std::optional<int> own_program_unless(Pid pid) override;
  Pid own_pid() override;
  Pid own_parent() override;
  std::uint32_t own_uid() override;
  std::optional<MemoryUse> memory_of(Pid pid) override;
  std::optional<MemoryShares> shares_of(Pid pid) override;
  std::optional<Duration> cpu_time_of(Pid pid) override;
  std::optional<AcceptQueue> accept_queue(int listener) override;
  std::optional<Measured> measure(Pid pid, const Wanted& wanted) override;
  Status set_nice(int level) override;
  Status set_affinity(Pid pid, const std::vector<std::uint32_t>& cpus) override;
  void remove_file(const std::string& path, std::uint64_t device, std::uint64_t inode) override;
  Status make_cgroup(const std::string& directory, const CgroupFiles& files) override {
    return os::make_cgroup(directory, files);
  }
  bool remove_cgroup(const std::string& directory) override { return os::remove_cgroup(directory); }
  std::vector<std::string> list_cgroups(const std::string& directory) override {
    return os::list_cgroups(directory);
  }
  std::optional<std::uint64_t> oom_kills(const std::string& directory) override {
    return os::oom_kills(directory);
  }
  Result<std::string> current_directory() override;
  Result<std::string> own_program_directory() override;
  Result<std::string> resolve_directory(const std::string& path) override;
  Result<std::string> find_program(const std::string& name, const std::string& path,
                                   const std::string& directory) override;

 private:
  explicit LinuxKernel(UniqueFd epoll) : epoll_(std::move(epoll)) {}

  void clear_places();

  UniqueFd epoll_;
  // The limit on open descriptors that this process was started with. Ours is raised as far as it
  // goes (each worker takes one); what we spawn gets the old one back.
  std::uint64_t soft_descriptors_ = 0;
  std::uint64_t hard_descriptors_ = 0;
  // Low numbers, open on nothing, for what a spawn passes on as standard output and error: the
  // child's copy of our table ends behind them, however many descriptors we have.
  std::array<UniqueFd, 2> places_;
  UniqueFd nothing_;
  void* spawn_stack_ = nullptr;  // mapped at the first spawn; one spawn at a time uses it
  // The signals that are ignored or handled here, a bit each, and not in what is spawned. Looked up
  // at the first spawn: whoever has a kernel has set its signals up before.
  std::uint64_t changed_signals_ = 0;
};

}  // namespace einhorn::os
