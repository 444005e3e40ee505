// The invariants that bound what a master and its guard hold: descriptors, and the snapshot.
#include <algorithm>

#include "base/health_limits.h"
#include "base/limits.h"
#include "sim/invariants.h"

namespace einhorn::sim {
namespace {

constexpr std::size_t kLongestTurn = 256 * 1024;     // what one turn may append
constexpr int kMostClients = 100;                    // beside those that have waited for a master
constexpr std::size_t kWorkerBytes = 4096;           // of the snapshot, garbage included
constexpr std::size_t kMostSnapshotBytes = 700'000;  // twice the biggest fresh one and the slack

}  // namespace

// The journal is written anew before it has grown to more than this; what a snapshot holds does not
// grow with the pool's age.
void Invariants::check_bounds(const wire::Snapshot& snapshot) {
  // When it was last written anew there may have been more: answers to many clients, old workers.
  const std::size_t fresh = std::max(wire::encode_journal(snapshot).size(), read_fresh_);
  world_.expect(snapshot.journal_bytes <= 2 * fresh + limits::kSnapshotSlackBytes + kLongestTurn,
                "bounded",
                "the journal has " + std::to_string(snapshot.journal_bytes) + " bytes, and " +
                    std::to_string(fresh) + " would do");
  // Those that no worker has any more go with the next upgrade; while there is no room to write that
  // down, each master finds them again.
  most_workers_ = std::max(most_workers_, snapshot.workers.size());
  world_.expect(snapshot.programs.size() <= most_workers_ + 12, "bounded",
                std::to_string(snapshot.programs.size()) + " versions are kept");
}

void Invariants::check_descriptors(MasterProcess& master, const pool::Pool& pool) {
  SimulatedKernel& kernel = master.kernel();
  const auto most = [&](FileKind kind, int count) {
    world_.expect(kernel.open_of(kind) <= count, "descriptors",
                  "the master has " + std::to_string(kernel.open_of(kind)) + " of " +
                      std::string(name(kind)) + " open, " + std::to_string(count) + " are enough");
  };
  const int hand_off = 1;  // the pidfd of a check or a successor
  const int stacks = static_cast<int>(limits::kMaxExaminations);
  most(FileKind::kListener, 1);
  most(FileKind::kDatagram, 1);
  const int waited = static_cast<int>(Listener::kBacklog);
  most(FileKind::kStream, static_cast<int>(pool.alive()) * 2 + waited + kMostClients);
  most(FileKind::kService, static_cast<int>(world_.plan.listeners));
  const int zygotes = static_cast<int>(master.zygotes());
  const int hooks = static_cast<int>(master.hooks());
  most(FileKind::kMemory, 2 + stacks);
  most(FileKind::kPacket, 2 + (world_.plan.capture ? 1 : 0) + (world_.plan.intercept ? 1 : 0) +
                              (world_.plan.agent ? 1 : 0) + zygotes);
  most(FileKind::kForm, world_.plan.intercept ? 1 : 0);
  most(FileKind::kLog, 1);
  most(FileKind::kProgram, 1);
  most(FileKind::kPidfd, static_cast<int>(pool.alive()) + hand_off + stacks + zygotes + hooks);
  world_.expect(kernel.open_of(FileKind::kService) == static_cast<int>(world_.plan.listeners),
                "ownership", "the master has lost a listening socket");
  if (!guard_.has_acting_master()) {
    return;
  }
  for (std::uint32_t i = 0; i < world_.plan.listeners; ++i) {
    world_.expect(guard_.stored("listen:" + std::to_string(i)) != nullptr, "ownership",
                  "the guard has lost a listening socket");
  }
  world_.expect(guard_.stored_count() <=
                    20 + static_cast<std::size_t>(world_.census.of(FileKind::kStream) +
                                                  world_.census.of(FileKind::kOutput) +
                                                  world_.census.of(FileKind::kNotify) + zygotes),
                "bounded", "the guard keeps more and more");
  const auto memory = std::dynamic_pointer_cast<Memory>(guard_.stored("snapshot"));
  // A hand-off writes down what clients have not read yet.
  const std::size_t unsent =
      static_cast<std::size_t>(kernel.open_of(FileKind::kStream)) * kMostUnsent;
  world_.expect(memory->size() < kMostSnapshotBytes + pool.alive() * kWorkerBytes + unsent,
                "bounded", "the snapshot grows without end");
}

}  // namespace einhorn::sim
