// The guard, as a model: the same messages (guard/guard.h) and the same decisions, without a
// process.
//
// The real one is a loop of system calls; this one is poked when its loop would wake up, and reacts
// a little later. Like the real one it sees several deaths as one SIGCHLD, reports a dead child
// before it reaps it, reaps nobody while there is no master, and starts a master that died again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/files.h"
#include "sim/process.h"
#include "sim/world.h"

namespace einhorn::sim {

class GuardModel {
 public:
  // `start` makes a master of a process whose end of the line to the guard is given.
  using StartMaster = std::function<void(const ProcessPtr&, FilePtr control)>;

  GuardModel(World& world, StartMaster start) : world_(world), start_(std::move(start)) {}

  void store(FilePtr file, const std::string& name);
  [[nodiscard]] FilePtr stored(std::string_view name) const;
  [[nodiscard]] std::size_t stored_count() const { return stored_.size(); }

  // Starts the first master.
  void run();
  // Something may be readable or writable.
  void poke();
  void on_child_ended(const ProcessPtr& child);
  void on_signal(int signal);

  [[nodiscard]] bool over() const { return over_; }
  [[nodiscard]] int word() const { return word_; }
  // Who acts now, as far as the guard knows; 0: nobody.
  [[nodiscard]] Pid master() const { return master_.pid; }
  [[nodiscard]] bool has_acting_master() const { return master_.pid > 0 && master_.ready; }
  // A master has said something that the guard has not heard yet.
  [[nodiscard]] bool has_mail() const {
    return (master_.control && master_.control->readable()) ||
           (successor_.control && successor_.control->readable());
  }
  [[nodiscard]] bool handing_off() const { return successor_.pid > 0; }
  void clear();  // lets go of everything, as the end of its process does

 private:
  struct Child {
    Pid pid = -1;
    std::shared_ptr<PacketEnd> control;
    bool ready = false;
    bool was_ready = false;
    Instant started_at;
  };

  void step();
  void start_master();
  bool send_descriptors(const Child& to, const std::string& go);
  void on_control_ready(Child& child);
  void on_message(Child& from, Packet packet);
  void on_ready(Child& from);
  void on_successor_gone();
  void on_master_gone();
  bool report_and_reap(Pid pid);
  bool handle_dead(const ProcessPtr& child);
  void forward_signals();
  void sweep();
  void plan_sweep(Duration delay);
  bool tell_master(const std::string& text);
  void close_control(Child& child);
  void plan_step(Duration delay);
  bool send(const Child& to, std::string text, std::vector<FilePtr> files = {});

  World& world_;
  StartMaster start_;
  std::vector<std::pair<std::string, FilePtr>> stored_;
  Child master_;
  Child successor_;
  bool frozen_ = false;
  std::set<int> pending_signals_;
  std::set<int> told_signals_;        // not confirmed yet
  std::optional<Pid> pending_death_;  // SIGCHLD, one for several
  bool unreported_ = false;
  std::optional<Instant> sweep_at_;
  std::optional<Instant> restart_at_;
  int failures_ = 0;
  bool was_ready_ = false;
  int word_ = -1;
  bool over_ = false;
  bool planned_ = false;
};

}  // namespace einhorn::sim
