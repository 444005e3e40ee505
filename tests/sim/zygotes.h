// Zygotes, as models: they load for a while, fork what they are asked for, and fail in every way:
// code that can't be loaded, that crashes, hangs, closes its socket; deaths while they load, when
// they are ready, after a fork; silence.
//
// What they are to their master is in docs/preload.md. A worker that was forked is one of Workers,
// and is known to nobody until its word has been read.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "os/kernel.h"
#include "sim/files.h"
#include "sim/process.h"
#include "sim/simulated_kernel.h"
#include "sim/workers.h"
#include "sim/world.h"

namespace einhorn::sim {

class Zygotes {
 public:
  Zygotes(World& world, Workers& workers) : world_(world), workers_(workers) {}

  static constexpr Duration kLoads = std::chrono::seconds{30};  // --preload-timeout
  [[nodiscard]] static bool is_one(const os::SpawnSpec& spec);
  // "FORK=12\n...", "FORK=" -> 12; 0: it is not there
  [[nodiscard]] static std::uint64_t number_behind(std::string_view text, std::string_view name);
  Result<os::Spawned> start(SimulatedKernel& by, const os::SpawnSpec& spec);
  // Something may be readable.
  void poke();
  void forget(const ProcessPtr& dead);
  // After a turn of the master that acts, and did since then.
  void check_loading(Instant acts_since) const;
  void clear();
  [[nodiscard]] std::size_t forked() const { return forked_; }

 private:
  struct Model {
    ProcessPtr process;
    std::shared_ptr<PacketEnd> socket;
    std::string directory;
    bool ready = false;
    bool silent = false;
    bool planned = false;
    std::uint64_t last = 0;
    std::set<std::uint64_t> asked;
  };

  void load(const std::shared_ptr<Model>& model);
  void say(const Model& model, Pid sender, const std::string& text);
  void serve(const std::shared_ptr<Model>& model);
  void fork(const std::shared_ptr<Model>& model, const Packet& order);
  void end_after(const std::shared_ptr<Model>& model, Duration delay, os::Ended how);

  World& world_;
  Workers& workers_;
  std::map<Pid, std::shared_ptr<Model>> models_;
  std::size_t forked_ = 0;
};

}  // namespace einhorn::sim
