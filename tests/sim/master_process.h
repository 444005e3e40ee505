// One master: a process of the simulated machine in which the real master runs.
#pragma once

#include <memory>
#include <optional>

#include "master/master.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"

namespace einhorn::sim {

class MasterProcess {
 public:
  // `control` is its end of the line to the guard.
  MasterProcess(World& world, Host& host, ProcessPtr process, FilePtr control, bool successor);

  // From exec to the first turn.
  void create();
  // Something is ready, or its deadline has come.
  [[nodiscard]] bool wants_turn() const;
  // When it will want one, as far as it depends on time alone.
  [[nodiscard]] std::optional<Instant> wakes_at() const;
  // One turn.
  void turn();
  // Its process has ended, by a signal or by itself.
  void on_ended();

  [[nodiscard]] bool gone() const { return process_->dead; }
  [[nodiscard]] bool running() const { return running_; }  // it is on the stack
  [[nodiscard]] bool created() const { return master_ != nullptr; }
  [[nodiscard]] bool successor() const { return successor_; }
  [[nodiscard]] const ProcessPtr& process() const { return process_; }
  [[nodiscard]] SimulatedKernel& kernel() { return kernel_; }
  // Null before it is created and when it is gone.
  [[nodiscard]] const pool::Pool* pool() const {
    return master_ && !gone() ? &master_->pool() : nullptr;
  }
  [[nodiscard]] std::size_t hooks() const { return master_ ? master_->hooks() : 0; }
  [[nodiscard]] std::size_t zygotes() const { return master_ && !gone() ? master_->zygotes() : 0; }
  [[nodiscard]] std::uint64_t turns() const { return turns_; }

 private:
  void leave(int status);
  void be_dead();

  World& world_;
  ProcessPtr process_;
  SimulatedKernel kernel_;
  std::unique_ptr<master::Master> master_;
  std::optional<Instant> deadline_;
  Instant busy_until_;
  int control_;
  bool parked_ = false;  // it waits; false: it wants to be turned to find out for what
  bool running_ = false;
  bool successor_;
  std::uint64_t turns_ = 0;
  Instant last_turn_;
  std::uint64_t turns_at_once_ = 0;
};

}  // namespace einhorn::sim
