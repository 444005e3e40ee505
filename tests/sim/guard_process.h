// The guard: a process of the simulated machine in which the real guard runs.
//
// It is the machine under the real `guard::Guard`, too: its descriptors, its signals, its children.
// Several deaths are one SIGCHLD. When nothing is ready, `wait` ends the guard's turn before it has
// done anything, and it is turned again a little after something is. It can be killed at any call.
// When it becomes another program, a new Guard is made of what it wrote down and of the descriptors
// that were inherited. At any time there is one at most; when one has died, the next one is born
// with what the master gave it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "guard/guard.h"
#include "guard/system.h"
#include "sim/files.h"
#include "sim/process.h"
#include "sim/world.h"

namespace einhorn::sim {

inline constexpr Duration kWatchdog = std::chrono::minutes{1};

class GuardProcess final : public guard::System {
 public:
  using Kept = std::vector<std::pair<std::string, FilePtr>>;
  // `start` makes a master of a process whose end of the line to the guard is given.
  using StartMaster = std::function<void(const ProcessPtr&, FilePtr control)>;

  GuardProcess(World& world, StartMaster start) : world_(world), start_(std::move(start)) {}

  // A guard begins, with what it has to keep; `predecessor`: who has to hear of it when it has
  // taken over, or null.
  void begin(ProcessPtr process, const Kept& kept, FilePtr predecessor);
  void kill();
  // Its n-th call from now on is its last; 0: it is not.
  void strike_in(std::uint64_t steps) { strike_in_ = steps; }

  // Something may be readable or writable.
  void poke();
  void on_child_ended(const ProcessPtr& child);
  void on_signal(int signal);

  [[nodiscard]] bool alive() const { return process_ && !process_->dead; }
  [[nodiscard]] Instant born_at() const { return process_->born_at; }
  [[nodiscard]] FilePtr stored(std::string_view name) const;
  [[nodiscard]] std::size_t stored_count() const { return guard_ ? guard_->stored().size() : 0; }
  [[nodiscard]] int word() const { return word_; }  // with which it left
  [[nodiscard]] bool gave_up() const { return gave_up_; }
  // Who acts now, as far as the guard knows; 0: nobody.
  [[nodiscard]] Pid master() const { return alive() && guard_ ? guard_->master() : 0; }
  [[nodiscard]] bool has_acting_master() const { return master() > 0 && guard_->acting(); }
  // A master has said something that the guard has not heard yet.
  [[nodiscard]] bool has_mail() const;
  // What the service manager heard last: READY=1, RELOADING=1 or STOPPING=1; and its WATCHDOG=1.
  [[nodiscard]] const std::string& manager_knows() const { return manager_knows_; }
  [[nodiscard]] Instant watchdog_at() const { return watchdog_at_; }
  [[nodiscard]] bool handing_off() const { return alive() && guard_ && guard_->handing_off(); }

  // --- guard::System
  std::int64_t now_ns() override { return world_.now().time_since_epoch().count(); }
  int begin() override;
  guard::Awake wait(const guard::Watched& watched) override;
  bool next_signal(guard::Signal& signal) override;
  guard::Heard receive(int socket, guard::Message& message) override;
  bool send(int socket, std::string_view text, std::span<const int> fds) override;
  void close(int fd) override;
  void set_nonblocking(int fd) override { static_cast<void>(fd); }
  void set_inherited(int fd, bool inherited) override;
  guard::Started start_master() override;
  guard::Look look_at(pid_t pid, guard::Death& death) override;
  void reap(pid_t pid) override;
  void kill(pid_t pid) override;
  int create_state() override;
  int write_state(int state, std::string_view text) override;
  int execute(int program, int state) override;
  void write_pid_file() override { world_.note("guard", "writes its pid file"); }
  void remove_files() override { world_.note("guard", "removes the pool's files"); }
  void tell_manager(std::string_view text, std::span<const int> fds) override;
  std::int64_t manager_watchdog_us() override;
  void say(const char* message) override;

 private:
  struct Parked {};
  struct Killed {};
  struct Renewed {
    int state = -1;
    int program = 0;
  };

  void step();  // maybe the last one
  void turn();
  void plan_turn(Duration delay);
  void leave();
  void die(os::Ended how);
  void renew(const Renewed& renewed);
  void go_on(const std::string& text);
  void look_at_store();
  void check_descriptors() const;
  int adopt(FilePtr file);
  [[nodiscard]] FilePtr file(int fd) const;
  [[nodiscard]] guard::Awake awake(const guard::Watched& watched) const;

  World& world_;
  StartMaster start_;
  ProcessPtr process_;
  std::unique_ptr<guard::Guard> guard_;  // null before it has begun and while it is renewed
  std::map<int, FilePtr> files_;
  std::set<int> inherited_;
  std::set<Pid> told_;  // of whose end it has told a master, and who is not reaped yet
  int predecessor_ = -1;
  std::set<int> pending_signals_;
  Pid pending_death_ = 0;  // SIGCHLD, one for several
  guard::Watched watched_;
  FilePtr last_snapshot_;
  std::uint64_t strike_in_ = 0;
  std::uint64_t life_ =
      0;  // counts guards and programs: what was planned for one is not for the next
  bool running_ = false;
  bool parked_ = false;
  bool planned_ = false;
  int word_ = -1;
  bool gave_up_ = false;
  std::string manager_knows_;
  Instant watchdog_at_;
};

}  // namespace einhorn::sim
