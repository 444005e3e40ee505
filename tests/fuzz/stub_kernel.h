// A kernel that does nothing: targets override the few verbs that they are about.
#pragma once

#include "os/kernel.h"

namespace einhorn::fuzz {

class StubKernel : public os::Kernel {
 public:
  Instant now() override { return {}; }
  WallOffset wall_offset() override { return {}; }
  std::size_t wait(std::span<os::Ready> /*ready*/, std::optional<Instant> /*deadline*/) override {
    return 0;
  }
  Status watch(int /*fd*/, std::uint64_t /*token*/, os::Interest /*interest*/) override {
    return Ok{};
  }
  void unwatch(int /*fd*/) override {}
  Result<os::Accepted> accept(int /*listener*/) override { return os::Accepted{}; }
  os::Transfer read(int /*fd*/, std::span<char> /*into*/) override { return {}; }
  os::Transfer write(int /*fd*/, std::string_view bytes) override {
    return {os::Transfer::Kind::kDone, bytes.size()};
  }
  os::Message receive(int /*socket*/) override { return {}; }
  os::Message peek(int /*socket*/) override {
    return {os::Transfer::Kind::kWouldBlock, "", {}, {}};
  }
  Status ask_for_senders(int /*socket*/) override { return Ok{}; }
  os::Transfer send(int /*socket*/, std::string_view text, std::span<const int> /*fds*/) override {
    return {os::Transfer::Kind::kDone, text.size()};
  }
  Result<std::pair<int, int>> socket_pair() override { return absent(); }
  Result<std::pair<int, int>> pipe() override { return absent(); }
  void close(int /*fd*/) override {}
  Status make_cgroup(const std::string& /*directory*/, const os::CgroupFiles& /*files*/) override {
    return Ok{};
  }
  bool remove_cgroup(const std::string& /*directory*/) override { return true; }
  std::vector<std::string> list_cgroups(const std::string& /*directory*/) override { return {}; }
  std::optional<std::uint64_t> oom_kills(const std::string& /*directory*/) override {
    return std::nullopt;
  }
  Result<int> raise(int fd, int /*least*/) override { return fd; }
  os::Transfer write_line(int /*fd*/, std::string_view line) override {
    return {os::Transfer::Kind::kDone, line.size()};
  }
  Result<int> open_log(const std::string& /*path*/) override { return absent(); }
  Result<int> create_memory(const char* /*name*/) override { return absent(); }
  Status write_at(int /*fd*/, std::uint64_t /*offset*/, std::string_view /*bytes*/) override {
    return absent();
  }
  Result<std::string> read_all(int /*fd*/) override { return absent(); }
  Result<os::SpawnNote*> map_note(int /*fd*/) override { return absent(); }
  void unmap_note(os::SpawnNote* /*note*/) override {}
  Result<os::Spawned> spawn(const os::SpawnSpec& /*spec*/) override { return absent(); }
  bool signal(int /*pidfd*/, Pid /*pid*/, int /*signal*/, bool /*group*/) override { return false; }
  std::optional<int> open_process(Pid /*pid*/, Pid /*parent*/) override { return std::nullopt; }
  bool is_dead(int /*pidfd*/) override { return true; }
  std::optional<os::Ended> reap(Pid /*pid*/) override { return std::nullopt; }
  Pid parent_of(Pid /*pid*/) override { return 0; }
  std::optional<int> own_program_unless(Pid /*pid*/) override { return std::nullopt; }
  Pid own_pid() override { return 1; }
  Pid own_parent() override { return 0; }
  std::uint32_t own_uid() override { return 0; }
  std::optional<Duration> cpu_time_of(Pid /*pid*/) override { return std::nullopt; }
  std::optional<os::AcceptQueue> accept_queue(int /*fd*/) override { return std::nullopt; }
  std::optional<os::MemoryUse> memory_of(Pid /*pid*/) override { return std::nullopt; }
  std::optional<os::MemoryShares> shares_of(Pid /*pid*/) override { return std::nullopt; }
  Result<std::string> own_program_directory() override { return std::string("/usr/bin"); }
  std::optional<os::Measured> measure(Pid /*pid*/, const os::Wanted& /*wanted*/) override {
    return std::nullopt;
  }
  bool runs_as(Pid /*pid*/, std::uint32_t /*uid*/) override { return false; }
  Status set_nice(int /*level*/) override { return Ok{}; }
  Status set_affinity(Pid /*pid*/, const std::vector<std::uint32_t>& /*cpus*/) override {
    return Ok{};
  }
  Result<std::vector<os::OpenedListener>> open_listeners(const os::BindSpec& /*spec*/,
                                                         int /*backlog*/) override {
    return std::vector<os::OpenedListener>();
  }
  Result<std::optional<os::SocketMade>> remake_socket(const std::string& /*path*/,
                                                      bool /*listening*/, std::uint32_t /*mode*/,
                                                      const std::string& /*group*/) override {
    return std::optional<os::SocketMade>();
  }
  void remove_file(const std::string& /*path*/, std::uint64_t /*device*/,
                   std::uint64_t /*inode*/) override {}
  Result<std::string> current_directory() override { return std::string("/"); }
  Result<std::string> resolve_directory(const std::string& path) override { return path; }
  Result<std::string> find_program(const std::string& name, const std::string& /*path*/,
                                   const std::string& /*directory*/) override {
    return name;
  }

 private:
  static Error absent() { return make_error("use the kernel", "there is none"); }
};

}  // namespace einhorn::fuzz
