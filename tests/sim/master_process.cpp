#include "sim/master_process.h"

namespace einhorn::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

constexpr Duration kPatience = seconds{30};
// More turns than this within a second without anything new is a loop that burns a processor.
constexpr std::uint64_t kMostTurnsASecond = 20'000;

}  // namespace

MasterProcess::MasterProcess(World& world, Host& host, ProcessPtr process, FilePtr control,
                             bool successor)
    : world_(world),
      process_(std::move(process)),
      kernel_(world, host, process_),
      control_(kernel_.adopt(std::move(control), 199)),
      successor_(successor) {}

void MasterProcess::create() {
  if (gone()) {
    return;
  }
  running_ = true;
  kernel_.set_creating(true);
  try {
    Result<std::unique_ptr<master::Master>> created =
        master::Master::create(kernel_, control_, kPatience, {"PATH=/usr/bin"});
    kernel_.set_creating(false);
    running_ = false;
    if (created) {
      master_ = std::move(*created);
      return;
    }
    world_.note("master",
                std::to_string(process_->pid) + " does not come up: " + created.error().message());
    world_.expect(successor_ || gone() || world_.find(process_->parent) == nullptr, "startup",
                  "a master could not take over: " + created.error().message());
    kernel_.die();
    world_.end(process_, {1, 1});
  } catch (const Killed&) {
    running_ = false;
    be_dead();
  } catch (const Violation&) {
    running_ = false;
    kernel_.die();
    throw;
  }
}

bool MasterProcess::wants_turn() const {
  if (!created() || gone() || running_ || world_.now() < busy_until_) {
    return false;
  }
  return !parked_ || kernel_.anything_ready() || (deadline_ && *deadline_ <= world_.now());
}

std::optional<Instant> MasterProcess::wakes_at() const {
  if (!created() || gone() || running_) {
    return std::nullopt;
  }
  if (!parked_ || kernel_.anything_ready()) {
    return busy_until_;
  }
  return deadline_ ? std::optional(std::max(*deadline_, busy_until_)) : std::nullopt;
}

void MasterProcess::turn() {
  running_ = true;
  parked_ = false;
  try {
    const bool goes_on = master_->turn();
    running_ = false;
    ++turns_;
    if (world_.now() - last_turn_ > seconds{1}) {
      last_turn_ = world_.now();
      turns_at_once_ = 0;
    }
    world_.expect(++turns_at_once_ < kMostTurnsASecond, "no-spinning",
                  "the master turns without end");
    busy_until_ = world_.now() + world_.random.skewed(microseconds{5}, microseconds{2000});
    if (!goes_on) {
      leave(0);
    }
  } catch (const Park& park) {
    running_ = false;
    parked_ = true;
    deadline_ = park.deadline;
  } catch (const Killed&) {
    running_ = false;
    be_dead();
  } catch (const Violation&) {
    running_ = false;
    kernel_.die();
    throw;
  }
}

void MasterProcess::on_ended() {
  kernel_.die();
  if (!running_) {
    be_dead();
  }
}

void MasterProcess::be_dead() {
  kernel_.die();
  master_.reset();
}

// By its own decision: what it still has is then its own fault.
void MasterProcess::leave(int status) {
  kernel_.set_leaving();
  master_.reset();
  for (const FileKind kind : {FileKind::kStream, FileKind::kListener, FileKind::kService,
                              FileKind::kPacket, FileKind::kDatagram, FileKind::kMemory,
                              FileKind::kLog, FileKind::kPidfd, FileKind::kProgram}) {
    world_.expect(kernel_.open_of(kind) == 0, "ledger",
                  "a master left without closing " + std::to_string(kernel_.open_of(kind)) + " " +
                      std::string(name(kind)) + kernel_.describe(kind));
  }
  kernel_.die();
  world_.end(process_, {1, status});
}

}  // namespace einhorn::sim
