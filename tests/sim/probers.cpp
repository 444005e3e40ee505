#include "sim/probers.h"

#include <algorithm>
#include <cerrno>

#include "base/numbers.h"

namespace einhorn::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// As master/prober.cpp makes one number of a worker.
constexpr unsigned kSlotBits = 20;

}  // namespace

bool Probers::is_prober(const os::SpawnSpec& spec) {
  return std::find(spec.arguments.begin(), spec.arguments.end(), "--probe-fd") !=
         spec.arguments.end();
}

Result<os::Spawned> Probers::start(SimulatedKernel& by, const os::SpawnSpec& spec) {
  if (world_.no_processes && world_.random.chance(500)) {
    return Error{EAGAIN, "spawn " + spec.program, ""};
  }
  const ProcessPtr process =
      world_.start_process(ProcessKind::kProber, spec.sibling ? by.own_parent() : by.own_pid());
  os::Spawned spawned;
  spawned.pid = process->pid;
  spawned.pidfd = by.adopt(std::make_shared<Pidfd>(world_.census, process));
  world_.note("process", std::to_string(process->pid) + " probes workers");
  if (world_.faults && world_.random.chance(50)) {
    world_.end(process, {1, 127});
    spawned.failed = Error{ENOENT, "exec " + spec.program, ""};
    return spawned;
  }
  auto prober = std::make_shared<Prober>();
  prober->process = process;
  prober->line = std::dynamic_pointer_cast<PacketEnd>(by.file(spec.descriptors.at(0).from));
  prober->silent = world_.faults && world_.random.chance(100);
  probers_.push_back(std::move(prober));
  return spawned;
}

void Probers::poke() {
  for (const auto& prober : probers_) {
    if (prober->busy || prober->line == nullptr || !prober->line->readable()) {
      continue;
    }
    prober->busy = true;
    world_.after(world_.random.duration(std::chrono::microseconds{10}, milliseconds{5}),
                 [this, prober] {
                   prober->busy = false;
                   if (!prober->process->dead) {
                     act(prober);
                   }
                 });
  }
}

void Probers::act(const std::shared_ptr<Prober>& prober) {
  Packet packet;
  while (prober->line != nullptr) {
    const os::Transfer::Kind kind = prober->line->receive(packet);
    if (kind == os::Transfer::Kind::kWouldBlock) {
      return;
    }
    if (kind == os::Transfer::Kind::kClosed) {
      world_.end(ProcessPtr(prober->process), {1, 0});  // its master is gone, or done with it
      return;
    }
    if (!prober->silent || !world_.faults) {
      ask(prober, key_values(packet.text));
    }
  }
}

void Probers::check_job(const KeyValues& job, const ProcessPtr& asked) const {
  const std::uint64_t id = number_of(value_of(job, "PROBE"));
  const std::uint64_t slot = id & ((std::uint64_t{1} << kSlotBits) - 1);
  const std::string place = std::to_string(9100 + slot);
  world_.expect(value_of(job, "kind") == world_.plan.probe, "honest",
                "a probe of another kind than the pool's: " + std::string(value_of(job, "kind")));
  world_.expect(world_.plan.probe == "command"
                    ? value_of(job, "command") ==
                          "check " + std::to_string(slot) + " " + std::string(value_of(job, "pid"))
                    : value_of(job, "address") == "127.0.0.1:" + place,
                "honest", "a probe of worker " + std::to_string(slot) + " asks somebody else");
  world_.expect(asked == nullptr || asked->kind != ProcessKind::kWorker || !asked->known ||
                    asked->worker.epoch.value == id >> kSlotBits,
                "honest", "a probe asks another worker than the one that it is about");
}

void Probers::ask(const std::shared_ptr<Prober>& prober, const KeyValues& job) {
  Random& random = world_.random;
  const auto pid = static_cast<Pid>(number_of(value_of(job, "pid")));
  const ProcessPtr asked = world_.find(pid);
  check_job(job, asked);
  const Duration timeout = milliseconds{number_of(value_of(job, "timeout_ms"))};
  const bool gone = asked == nullptr || asked->dead || asked->kind != ProcessKind::kWorker;
  const bool hangs = !gone && asked->stalled_at != Instant{} && world_.plan.probe != "tcp";
  const bool wrong = world_.faults && random.chance(30);  // too slow just then, or a bad answer
  const bool well = !gone && !hangs && !wrong;
  const Duration takes = hangs ? timeout : random.skewed(std::chrono::microseconds{50}, timeout);
  const std::string id(value_of(job, "PROBE"));
  world_.after(takes, [this, prober, id, well, gone] {
    if (prober->process->dead || prober->line == nullptr) {
      return;
    }
    prober->line->send({"PROBED=" + id + "\nwell=" + (well ? "1" : "0") + "\ndetail=" +
                            (well   ? ""
                             : gone ? "connect: Connection refused"
                                    : "it did not answer"),
                        {}});
    if (world_.faults && world_.random.chance(10)) {
      world_.note("fault", "prober " + std::to_string(prober->process->pid) + " ends");
      world_.end(ProcessPtr(prober->process), {2, 11});
    }
  });
}

void Probers::forget(const ProcessPtr& dead) {
  std::erase_if(probers_, [&dead](const auto& prober) {
    if (prober->process != dead) {
      return false;
    }
    prober->line = nullptr;  // an event may still hold it
    return true;
  });
}

void Probers::clear() {
  for (const auto& prober : probers_) {
    prober->line = nullptr;
  }
}

ProcessPtr Probers::any() const { return probers_.empty() ? nullptr : probers_.front()->process; }

}  // namespace einhorn::sim
