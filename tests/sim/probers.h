// Probers (--probe, --probe-command), as models: they hear whom to ask, ask the worker's model, and
// say whether it is well; they are slow, silent, wrong and killed.
//
// A worker that stalls answers neither HTTP nor a command; its connections are made all the same.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/key_values.h"
#include "os/kernel.h"
#include "sim/files.h"
#include "sim/process.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"

namespace einhorn::sim {

class Probers {
 public:
  explicit Probers(World& world) : world_(world) {}

  // Whether that is what somebody who starts this program wants.
  [[nodiscard]] static bool is_prober(const os::SpawnSpec& spec);
  Result<os::Spawned> start(SimulatedKernel& by, const os::SpawnSpec& spec);
  // Looks whether one of them has something to do.
  void poke();
  void forget(const ProcessPtr& dead);
  void clear();  // at the end of everything
  // Null: there is none.
  [[nodiscard]] ProcessPtr any() const;

 private:
  struct Prober {
    ProcessPtr process;
    std::shared_ptr<PacketEnd> line;
    bool busy = false;
    bool silent = false;  // it asks nobody, while there are faults
  };
  void act(const std::shared_ptr<Prober>& prober);
  void ask(const std::shared_ptr<Prober>& prober, const KeyValues& job);
  void check_job(const KeyValues& job, const ProcessPtr& asked) const;

  World& world_;
  std::vector<std::shared_ptr<Prober>> probers_;
};

}  // namespace einhorn::sim
