// The real machine under the guard: signalfd, poll, vfork, waitid; the files it leaves, its log.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "guard/system.h"
#include "os/linux/child_identity.h"

namespace einhorn::guard {

inline constexpr std::size_t kPathBytes = 4096;
inline constexpr std::size_t kSocketPathBytes = 112;  // more than a socket can be named by
inline constexpr std::size_t kMaxSocketFiles = 64;

// A file that goes when the guard leaves, if it is still the one that we made.
struct OwnFile {
  std::array<char, kSocketPathBytes> path{};
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

// What the guard needs to know, gathered before it runs. Big: lives in static storage or on the
// heap.
struct Plan {
  int program = -1;   // O_PATH descriptor of our own executable
  int control = 199;  // the number at which a master finds its end of the socket pair
  // argv of a master: PROGRAM --with-state-fd CONTROL -- COMMAND...; also of a renewed guard, with
  // another number.
  char** arguments = nullptr;
  char* const* environment = nullptr;  // of a master
  // The soft limit of open files (RLIMIT_NOFILE) for masters and a renewed guard, so that workers
  // get the one that we were started with, not the one that we raised for ourselves. 0: ours.
  std::uint64_t soft_descriptors = 0;
  // As whom masters run; null: as we do. And what we keep of our own rights; none: all.
  const os::ChildIdentity* master_identity = nullptr;
  std::optional<std::uint64_t> capabilities;
  std::array<OwnFile, kMaxSocketFiles> files;
  std::size_t file_count = 0;
  std::array<char, kPathBytes> pidfile{};
  std::array<char, kPathBytes> log_file{};  // "": standard error
  bool log_json = false;
  std::array<char, 109> notify_socket{};  // of our own service manager; "" none
  std::int64_t watchdog_us = 0;           // how often it wants to hear of us; 0: never
};

class LinuxSystem final : public System {
 public:
  explicit LinuxSystem(Plan& plan);

  std::int64_t now_ns() override;
  int begin() override;
  Awake wait(const Watched& watched) override;
  bool next_signal(Signal& signal) override;
  Heard receive(int socket, Message& message) override;
  bool send(int socket, std::string_view text, std::span<const int> fds) override;
  void close(int fd) override;
  void set_nonblocking(int fd) override;
  void set_inherited(int fd, bool inherited) override;
  Started start_master() override;
  Look look_at(pid_t pid, Death& death) override;
  void reap(pid_t pid) override;
  void kill(pid_t pid) override;
  int create_state() override;
  int write_state(int state, std::string_view text) override;
  int execute(int program, int state) override;
  void write_pid_file() override;
  void remove_files() override;
  void tell_manager(std::string_view text, std::span<const int> fds) override;
  std::int64_t manager_watchdog_us() override;
  void say(const char* message) override;

 private:
  // Sets our soft limit of open files; the one before. System calls only.
  static std::uint64_t set_soft_descriptors(std::uint64_t limit);
  void complain(const char* format, ...) __attribute__((format(printf, 2, 3)));

  Plan& plan_;
  int signals_ = -1;
};

}  // namespace einhorn::guard
