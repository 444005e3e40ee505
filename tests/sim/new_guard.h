// `einhorn` started again after the guard's death: it asks the living master for the pool and
// becomes its guard. Somebody starts it a while after that death, and again if it fails.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "sim/guard_process.h"
#include "sim/workers.h"
#include "sim/world.h"

namespace einhorn::sim {

class NewGuard {
 public:
  NewGuard(World& world, Workers& workers, GuardProcess& guard)
      : world_(world), workers_(workers), guard_(guard) {}

  // There is no guard: somebody will start one.
  void plan();
  // An answer may have come.
  void poke();
  void on_ended(const ProcessPtr& process);

 private:
  void start();
  void read();
  void take_over();
  void give_up(const std::string& why);

  World& world_;
  Workers& workers_;
  GuardProcess& guard_;
  bool planned_ = false;
  bool reading_ = false;
  // While it asks:
  ProcessPtr process_;
  std::shared_ptr<Stream> stream_;
  std::string text_;
  std::vector<std::string> names_;
  std::vector<FilePtr> files_;
};

}  // namespace einhorn::sim
