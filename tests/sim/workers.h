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
  // A zygote has forked one, which has said so.
  void adopt(const ProcessPtr& process, const std::string& directory, std::shared_ptr<Stream> link);
  [[nodiscard]] bool is_bad(const std::string& directory) const;
  void on_signal(const ProcessPtr& worker, int signal);
  // Living ones, by pid.
  [[nodiscard]] std::vector<ProcessPtr> living() const;
  // One of them whose output nobody could read any more, and would not even if readers came; null:
  // there is none.
  [[nodiscard]] ProcessPtr unheard() const;
  void ping(const ProcessPtr& worker);
  // Somebody who is up stalls from now on; null: there is nobody.
  ProcessPtr stall_one();
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
    std::weak_ptr<Notify> notify;  // with --intercept
    std::vector<std::shared_ptr<OutputEnd>> output;
    std::vector<std::shared_ptr<Membership>> groups;
    bool stopping = false;
    bool stalled = false;
  };

  // A release of the program: what runs a bad one mostly fails; of a missing one there is nothing.
  enum class Release { kGood, kBad, kMissing };

  Behaviour choose(const std::string& directory);
  static std::size_t release_of(const std::string& directory);
  [[nodiscard]] bool is_missing(const std::string& directory) const;
  Error failed_stage(const os::SpawnSpec& spec);
  void live(const ProcessPtr& worker, Behaviour behaviour);
  void ack(const ProcessPtr& worker, Duration delay);
  void ping_every(const ProcessPtr& worker, Duration interval);
  void stall_at(const ProcessPtr& worker, Duration delay);
  void say(const ProcessPtr& worker);
  void say_for_another(const ProcessPtr& worker);
  void bind(const ProcessPtr& worker);
  void send_line(const ProcessPtr& worker, const std::string& line);
  void end_after(const ProcessPtr& worker, Duration delay, os::Ended how, bool fault);
  void fork_and_exit(const ProcessPtr& worker, Duration delay);
  Model* find(const ProcessPtr& worker);

  World& world_;
  std::shared_ptr<Listener> command_;
  std::shared_ptr<DatagramSocket> notify_;
  std::map<Pid, Model> models_;
  // What children hold that workers leave behind.
  struct LeftBehind {
    std::vector<std::shared_ptr<OutputEnd>> output;
    std::vector<std::shared_ptr<Membership>> groups;
  };
  std::map<Pid, LeftBehind> left_behind_;
  std::vector<Release> releases_{Release::kGood};
};

}  // namespace einhorn::sim
