// The user's programs, as models: they come up, say so, serve, crash, hang, drain and stop.
//
// Their versions are the releases that were deployed; a release may be bad, and then most of what
// runs it fails.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "os/kernel.h"
#include "sim/files.h"
#include "sim/process.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"

namespace einhorn::sim {

class Workers {
 public:
  Workers(World& world, std::shared_ptr<Listener> command, std::shared_ptr<DatagramSocket> notify)
      : world_(world), command_(std::move(command)), notify_(std::move(notify)) {}

  // A new release of the program; where it is.
  Result<std::string> deploy();
  Result<os::Spawned> start(SimulatedKernel& by, const os::SpawnSpec& spec, WorkerId id);
  void on_signal(const ProcessPtr& worker, int signal);
  // Living ones, by pid.
  [[nodiscard]] std::vector<ProcessPtr> living() const;
  void ping(const ProcessPtr& worker);
  // No more hanging: whoever was told to stop does so soon.
  void calm();
  // Null: the backlog is full.
  std::shared_ptr<Stream> connect(Pid pid, std::size_t capacity, std::uint32_t user = 0);
  void clear();  // at the end of everything
  // It is dead, and with it the sockets that were its own.
  void forget(const ProcessPtr& dead);

 private:
  struct Model {
    ProcessPtr process;
    Behaviour behaviour = Behaviour::kHealthy;
    std::shared_ptr<Stream> link;  // with -g
    bool stopping = false;
  };

  // A release of the program: what runs a bad one mostly fails; of a missing one there is nothing.
  enum class Release { kGood, kBad, kMissing };

  Behaviour choose(const std::string& directory);
  static std::size_t release_of(const std::string& directory);
  [[nodiscard]] bool is_missing(const std::string& directory) const;
  Error failed_stage(const os::SpawnSpec& spec);
  void live(const ProcessPtr& worker, Behaviour behaviour);
  void ack(const ProcessPtr& worker, Duration delay);
  void say(const ProcessPtr& worker);
  void send_line(const ProcessPtr& worker, const std::string& line);
  void end_after(const ProcessPtr& worker, Duration delay, os::Ended how, bool fault);
  void fork_and_exit(const ProcessPtr& worker, Duration delay);
  Model* find(const ProcessPtr& worker);

  World& world_;
  std::shared_ptr<Listener> command_;
  std::shared_ptr<DatagramSocket> notify_;
  std::map<Pid, Model> models_;
  std::vector<Release> releases_{Release::kGood};
};

}  // namespace einhorn::sim
