#include "sim/guard_model.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>

#include "base/limits.h"

namespace einhorn::sim {
namespace {

using Kind = os::Transfer::Kind;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kLived = milliseconds{200};
constexpr int kQuickRestarts = 10;
constexpr int kMaxStartFailures = 10;
constexpr std::size_t kMaxDescriptorsPerMessage = 64;

std::optional<std::string_view> value_of(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == '=') {
      return line.substr(key.size() + 1);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return std::nullopt;
}

std::optional<int> number_of(std::string_view text, std::string_view key) {
  const auto value = value_of(text, key);
  int number = 0;
  if (!value ||
      std::from_chars(value->data(), value->data() + value->size(), number).ec != std::errc{}) {
    return std::nullopt;
  }
  return number;
}

}  // namespace

void GuardModel::store(FilePtr file, const std::string& name) {
  if (const auto memory = std::dynamic_pointer_cast<Memory>(file);
      memory != nullptr && memory->written_after == world_.snapshots_lost) {
    world_.snapshot_lossy = false;  // what could not be written down is in this one
  }
  for (auto& [known, kept] : stored_) {
    if (known == name) {
      kept = std::move(file);
      return;
    }
  }
  world_.expect(stored_.size() < limits::kMaxStoredDescriptors, "bounded",
                "the guard was given too many descriptors");
  stored_.emplace_back(name, std::move(file));
}

FilePtr GuardModel::stored(std::string_view name) const {
  for (const auto& [known, kept] : stored_) {
    if (known == name) {
      return kept;
    }
  }
  return nullptr;
}

void GuardModel::clear() {
  stored_.clear();
  close_control(master_);
  close_control(successor_);
}

void GuardModel::run() { start_master(); }

void GuardModel::plan_step(Duration delay) {
  if (!planned_ && !over_) {
    planned_ = true;
    world_.after(delay, [this] {
      planned_ = false;
      step();
    });
  }
}

void GuardModel::poke() {
  const auto wants = [](const Child& child) { return child.control && child.control->readable(); };
  const bool room = (!pending_signals_.empty() || unreported_) && master_.ready &&
                    master_.control && master_.control->writable();
  if (wants(master_) || wants(successor_) || room || pending_death_) {
    plan_step(world_.random.skewed(microseconds{5}, milliseconds{8}));
  }
}

void GuardModel::on_child_ended(const ProcessPtr& child) {
  if (!pending_death_) {
    pending_death_ = child->pid;  // the others are not told apart any more
  }
  plan_step(world_.random.skewed(microseconds{5}, milliseconds{8}));
}

void GuardModel::on_signal(int signal) {
  pending_signals_.insert(signal);
  plan_step(microseconds{50});
}

// One turn of the guard's loop.
void GuardModel::step() {
  if (over_) {
    return;
  }
  on_control_ready(master_);
  on_control_ready(successor_);
  if (const auto dead = std::exchange(pending_death_, std::nullopt)) {
    report_and_reap(*dead);
    report_and_reap(master_.pid);
    if (!sweep_at_) {
      plan_sweep(seconds{1});
    }
  }
  if (over_) {
    return;
  }
  forward_signals();
  if (restart_at_ && *restart_at_ <= world_.now()) {
    restart_at_.reset();
    start_master();
  }
  const bool room = unreported_ && master_.ready && master_.control && master_.control->writable();
  if (room || (sweep_at_ && *sweep_at_ <= world_.now())) {
    sweep_at_.reset();
    sweep();
  }
}

void GuardModel::plan_sweep(Duration delay) {
  sweep_at_ = world_.now() + delay;
  world_.at(*sweep_at_, [this] { plan_step(Duration::zero()); });
}

void GuardModel::start_master() {
  auto [ours, theirs] = PacketEnd::pair(world_.census, world_.plan.packets);
  const ProcessPtr process = world_.start_process(ProcessKind::kMaster, World::kGuardPid);
  world_.note("guard", "starts master " + std::to_string(process->pid));
  master_ = Child{process->pid, std::move(ours), false, false, world_.now()};
  world_.expect(send_descriptors(master_, "X_EINHORN_GO=1"), "model", "no room for descriptors");
  start_(process, std::move(theirs));
}

bool GuardModel::send(const Child& to, std::string text, std::vector<FilePtr> files) {
  return to.control && to.control->send({std::move(text), std::move(files)}) == Kind::kDone;
}

bool GuardModel::send_descriptors(const Child& to, const std::string& go) {
  std::size_t next = 0;
  while (next < stored_.size()) {
    std::string text = "X_EINHORN_FDS=1\n";
    std::vector<FilePtr> files;
    for (; next < stored_.size() && files.size() < kMaxDescriptorsPerMessage; ++next) {
      text += stored_[next].first + "\n";
      files.push_back(stored_[next].second);
    }
    if (!send(to, std::move(text), std::move(files))) {
      return false;
    }
  }
  return send(to, go);
}

void GuardModel::on_control_ready(Child& child) {
  while (child.control) {
    Packet packet;
    const Kind kind = child.control->receive(packet);
    if (kind == Kind::kWouldBlock) {
      return;
    }
    if (kind == Kind::kClosed) {
      close_control(child);
      plan_sweep(milliseconds{10});  // its death may be one SIGCHLD with another's
      return;
    }
    on_message(child, std::move(packet));
  }
}

void GuardModel::on_message(Child& from, Packet packet) {
  const std::string& text = packet.text;
  const std::string name(value_of(text, "FDNAME").value_or(""));
  world_.note("guard", "hears " + text.substr(0, text.find('\n')) + " " + name);
  if (value_of(text, "FDSTORE") == "1" && !packet.files.empty()) {
    store(packet.files[0], name);
  }
  if (const auto number = number_of(text, "X_EINHORN_SUCCESSOR");
      number && &from == &master_ && packet.files.size() == 1 && successor_.pid < 0) {
    successor_ = Child{*number, std::dynamic_pointer_cast<PacketEnd>(packet.files[0]), false, false,
                       world_.now()};
    plan_step(microseconds{5});
  }
  if (&from == &successor_ && value_of(text, "X_EINHORN_HELLO") == "1" && !frozen_ &&
      tell_master("X_EINHORN_FREEZE=1")) {
    frozen_ = true;
    master_.ready = false;
  }
  if (&from == &master_ && frozen_ && value_of(text, "X_EINHORN_FROZEN") == "1" &&
      !send_descriptors(successor_, "X_EINHORN_GO=2")) {
    if (const ProcessPtr successor = world_.find(successor_.pid)) {
      world_.deliver(successor, SIGKILL, false);
    }
  }
  if (value_of(text, "FDSTOREREMOVE") == "1") {
    std::erase_if(stored_, [&name](const auto& entry) { return entry.first == name; });
  }
  if (const auto number = number_of(text, "EXIT_STATUS")) {
    word_ = *number;
  }
  if (const auto number = number_of(text, "X_EINHORN_SIGNALED")) {
    told_signals_.erase(*number);
  }
  if (const auto number = number_of(text, "X_EINHORN_REAP")) {
    report_and_reap(*number);
  }
  if (value_of(text, "READY") == "1") {
    on_ready(from);
  }
}

void GuardModel::on_ready(Child& from) {
  if (&from == &successor_) {
    tell_master("X_EINHORN_LEAVE=1");
    close_control(master_);
    master_ = std::exchange(successor_, Child{});
    frozen_ = false;
    failures_ = 0;
  }
  master_.ready = true;
  master_.was_ready = true;
  was_ready_ = true;
  forward_signals();
  sweep();
}

void GuardModel::on_successor_gone() {
  world_.note("guard", "the successor is gone");
  close_control(successor_);
  successor_ = Child{};
  if (std::exchange(frozen_, false)) {
    master_.ready = true;
  }
  if (tell_master("X_EINHORN_THAW=1")) {
    forward_signals();
    sweep();
  }
}

bool GuardModel::tell_master(const std::string& text) { return send(master_, text); }

void GuardModel::close_control(Child& child) {
  child.control.reset();
  child.ready = false;
}

bool GuardModel::report_and_reap(Pid pid) {
  const ProcessPtr child = world_.find(pid);
  if (child == nullptr || !child->dead || child->parent != World::kGuardPid) {
    return false;
  }
  return handle_dead(child);
}

// False: it has to stay a zombie for now.
bool GuardModel::handle_dead(const ProcessPtr& child) {
  if (child->pid == master_.pid) {
    on_control_ready(master_);
    if (child->pid != master_.pid || child->reaped) {
      return !over_;
    }
    world_.reap(child);
    on_master_gone();
    return !over_;
  }
  if (child->pid == successor_.pid) {
    world_.reap(child);
    on_control_ready(successor_);
    if (child->pid == successor_.pid) {
      on_successor_gone();
    }
    return true;
  }
  if (!master_.ready || !send(master_, "X_EINHORN_EXITED=" + std::to_string(child->pid) + " " +
                                           std::to_string(child->ended.code) + " " +
                                           std::to_string(child->ended.status))) {
    unreported_ = true;
    return false;
  }
  unreported_ = false;
  world_.note("guard", "reports and reaps " + std::to_string(child->pid));
  world_.reap(child);
  return true;
}

void GuardModel::sweep() {
  report_and_reap(successor_.pid);
  report_and_reap(master_.pid);
  for (;;) {
    ProcessPtr dead;
    for (const auto& [pid, process] : world_.processes()) {
      if (process->dead && process->parent == World::kGuardPid) {
        dead = process;
        break;
      }
    }
    if (dead == nullptr || !handle_dead(dead)) {
      return;
    }
  }
}

void GuardModel::forward_signals() {
  static constexpr std::array kForwarded = {SIGINT,  SIGTERM, SIGQUIT, SIGHUP, SIGUSR1,
                                            SIGUSR2, SIGTTIN, SIGTTOU, SIGALRM};
  for (const int number : kForwarded) {
    if (pending_signals_.contains(number) && master_.ready &&
        send(master_, "X_EINHORN_SIGNAL=" + std::to_string(number))) {
      pending_signals_.erase(number);
      told_signals_.insert(number);
    }
  }
}

void GuardModel::on_master_gone() {
  const bool was_ready = master_.was_ready;
  const bool lived = was_ready && world_.now() - master_.started_at > kLived;
  close_control(master_);
  pending_signals_.merge(told_signals_);
  told_signals_.clear();
  const Pid pid = std::exchange(master_.pid, -1);
  frozen_ = false;
  if (successor_.pid > 0) {
    if (const ProcessPtr successor = world_.find(successor_.pid)) {
      world_.deliver(successor, SIGKILL, false);
    }
    close_control(successor_);
    successor_ = Child{};
  }
  world_.note("guard", "master " + std::to_string(pid) + " is gone");
  if (word_ >= 0) {
    over_ = true;
    world_.over = true;
    return;
  }
  failures_ = lived ? 0 : failures_ + 1;
  if (!was_ready_ && failures_ >= kMaxStartFailures) {
    word_ = 1;
    over_ = true;
    world_.over = true;
    return;
  }
  const int free_tries = was_ready ? kQuickRestarts : 1;
  if (failures_ <= free_tries) {
    start_master();
    return;
  }
  const int exponent = std::min(failures_ - free_tries, 12);
  const Duration most = was_ready ? Duration{seconds{1}} : limits::kMasterRestartDelayMost;
  const Duration delay = std::min<Duration>(milliseconds{10} * (1 << exponent), most);
  restart_at_ = world_.now() + delay;
  world_.at(*restart_at_, [this] { plan_step(Duration::zero()); });
}

}  // namespace einhorn::sim
