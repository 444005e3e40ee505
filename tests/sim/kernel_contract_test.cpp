// The simulated kernel under the contract that the real one keeps too
// (tests/unit/os_kernel_contract.h): a fake that drifts would prove nothing about the real thing.
#include <csignal>
#include <cstring>

#include "base/numbers.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"
#include "unit/os_kernel_contract.h"

namespace einhorn::os::contract {
namespace {

using std::chrono::milliseconds;

// A machine with one master's kernel on it, and three programs.
class SimulatedWorld final : public World, public sim::Host {
 public:
  SimulatedWorld() : world_(1, nullptr) {
    world_.faults = false;
    world_.on_ended = [](const sim::ProcessPtr&) {};
    world_.on_child_ended = [](const sim::ProcessPtr&) {};
    world_.on_signal = [this](const sim::ProcessPtr& to, int signal) {
      world_.end(to, {CLD_KILLED, signal});
    };
    kernel_ = std::make_unique<sim::SimulatedKernel>(
        world_, *this, world_.start_process(sim::ProcessKind::kMaster, 1));
    kernel_->set_forgiving();
    kernel_->set_creating(true);  // it waits in `wait` itself
  }

  Kernel& kernel() override { return *kernel_; }
  std::pair<int, int> stream_pair() override {
    auto [one, other] = sim::Stream::pair(world_.census, {}, 200'000);
    const int first = kernel_->adopt(std::move(one));
    return {first, kernel_->adopt(std::move(other))};
  }
  std::pair<int, int> packet_pair() override { return *kernel_->socket_pair(); }
  std::pair<int, int> pipe() override { return stream_pair(); }
  int listener() override { return kernel_->adopt(std::make_shared<sim::Listener>(world_.census)); }
  int connect(int listener) override {
    auto [ours, theirs] = sim::Stream::pair(world_.census, {kernel_->own_pid(), 0, 0}, 65536);
    std::dynamic_pointer_cast<sim::Listener>(kernel_->file(listener))
        ->waiting.push_back(std::move(theirs));
    return kernel_->adopt(std::move(ours));
  }
  SpawnSpec exits_with(int code) override { return program("exits", std::to_string(code)); }
  SpawnSpec waits_for_ever() override { return program("waits", ""); }
  SpawnSpec does_not_exist() override { return program("/nowhere/at/all", ""); }

  // --- sim::Host
  Result<Spawned> start_program(sim::SimulatedKernel& by, const SpawnSpec& spec) override {
    const sim::ProcessPtr process =
        world_.start_process(sim::ProcessKind::kWorker, spec.sibling ? 1 : by.own_pid());
    Spawned spawned;
    spawned.pid = process->pid;
    spawned.pidfd = by.adopt(std::make_shared<sim::Pidfd>(world_.census, process));
    if (spec.note != nullptr) {
      spec.note->pid = process->pid;
    }
    spawned.failed = sim::refusal(spec);
    if (!spawned.failed && spec.program.starts_with('/')) {
      spawned.failed = Error{ENOENT, "exec " + spec.program, ""};
    }
    if (spawned.failed) {
      world_.end(process, {CLD_EXITED, 127});
    } else if (spec.program == "exits") {
      const int code = number_of<int>(spec.arguments.at(1));
      world_.after(milliseconds{1}, [this, process, code] {
        world_.end(process, {CLD_EXITED, code});
      });
    }
    return spawned;
  }
  void run_until_ready(sim::SimulatedKernel& kernel, std::optional<Instant> deadline) override {
    while (!kernel.anything_ready()) {
      if (world_.has_events() && (!deadline || world_.next_event() <= *deadline)) {
        world_.run_event();
        continue;
      }
      if (deadline) {
        world_.advance_to(*deadline);
      }
      return;
    }
  }
  void on_master_signals(sim::SimulatedKernel& /*by*/, const sim::ProcessPtr& /*to*/,
                         int /*signal*/, bool /*by_pidfd*/) override {}
  void on_master_reads(std::string_view /*snapshot*/) override {}
  void on_master_writes(sim::SimulatedKernel& /*by*/, std::string_view /*bytes*/) override {}
  void on_strike(sim::SimulatedKernel& /*at*/) override {}
  WorkerId worker_asked_for(sim::SimulatedKernel& /*by*/, std::string_view /*order*/) override {
    return {};
  }
  Result<std::string> deploy() override { return std::string("/"); }

 private:
  static SpawnSpec program(const std::string& name, const std::string& argument) {
    SpawnSpec spec;
    spec.program = name;
    spec.arguments = {name, argument};
    return spec;
  }

  sim::World world_;
  std::unique_ptr<sim::SimulatedKernel> kernel_;
};

std::unique_ptr<World> make_simulated_world() { return std::make_unique<SimulatedWorld>(); }

INSTANTIATE_TEST_SUITE_P(Simulated, KernelContract, ::testing::Values(&make_simulated_world));

}  // namespace
}  // namespace einhorn::os::contract
