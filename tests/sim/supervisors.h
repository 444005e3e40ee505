// Supervisors of intercepted programs (--intercept), as models: they hold the notify descriptors
// that they are told of, answer what a program asks, say who listens, whose connections are over and
// who is gone, send a form of a socket, leave when told to; they are slow, silent and killed.
//
// A program that asks waits until one of them answers; if nobody holds its notify descriptor any
// more its call fails, and it gives up.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "os/kernel.h"
#include "sim/files.h"
#include "sim/process.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"

namespace einhorn::sim {

class Supervisors {
 public:
  explicit Supervisors(World& world) : world_(world) {}

  // Whether that is what somebody who starts this program wants.
  [[nodiscard]] static bool is_one(const os::SpawnSpec& spec);
  Result<os::Spawned> start(SimulatedKernel& by, const os::SpawnSpec& spec);
  // Looks whether one of them has something to do.
  void poke();
  void forget(const ProcessPtr& dead);
  void clear();  // at the end of everything
  // Null: there is none.
  [[nodiscard]] ProcessPtr any() const;

 private:
  struct Supervisor {
    ProcessPtr process;
    std::shared_ptr<PacketEnd> line;
    std::map<std::uint64_t, std::shared_ptr<Notify>> watched;  // by epoch
    std::set<std::uint64_t> listening;
    std::deque<Packet> unsent;
    bool busy = false;
    bool silent = false;  // it never says that a worker has drained
    bool formed = false;  // it has made a form
  };
  using SupervisorPtr = std::shared_ptr<Supervisor>;

  static bool has_something(const Supervisor& supervisor);
  void act(const SupervisorPtr& supervisor);
  // False: it was told to leave.
  bool hear(const SupervisorPtr& supervisor, const Packet& packet);
  void answer(Supervisor& supervisor);
  void say(Supervisor& supervisor, std::string text, std::vector<FilePtr> files = {});
  static void flush(Supervisor& supervisor);

  World& world_;
  std::vector<SupervisorPtr> supervisors_;
};

}  // namespace einhorn::sim
