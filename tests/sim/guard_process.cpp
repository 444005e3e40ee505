#include "sim/guard_process.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>

#include "base/key_values.h"
#include "guard/renewal.h"

namespace einhorn::sim {
namespace {

using Kind = os::Transfer::Kind;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int kAborted = 3;  // CLD_DUMPED

}  // namespace

// --- its life
// -------------------------------------------------------------------------------------
void GuardProcess::begin(ProcessPtr process, const Kept& kept, FilePtr predecessor) {
  process_ = std::move(process);
  process_->program = world_.program;
  world_.set_guard(process_);
  ++life_;
  files_.clear();
  inherited_.clear();
  told_.clear();
  pending_signals_.clear();
  pending_death_ = 0;
  strike_in_ = 0;
  planned_ = false;
  predecessor_ = -1;
  word_ = -1;
  gave_up_ = false;
  manager_knows_.clear();
  watchdog_at_ = Instant{};
  guard_ = std::make_unique<guard::Guard>(*this);
  for (const auto& [name, kept_file] : kept) {
    world_.expect(guard_->store(adopt(kept_file), name), "bounded",
                  "the guard has no room for \"" + name + "\"");
  }
  if (predecessor != nullptr) {
    predecessor_ = adopt(std::move(predecessor));
    guard_->succeed(predecessor_);
  }
  parked_ = false;
  try {
    if (!guard_->begin()) {
      leave();
      return;
    }
  } catch (const Killed&) {
    die({2, SIGKILL});
    return;
  }
  plan_turn(microseconds{10});
}

void GuardProcess::plan_turn(Duration delay) {
  if (planned_ || !alive()) {
    return;
  }
  planned_ = true;
  world_.after(delay, [this, life = life_] {
    if (life == life_) {
      planned_ = false;
      turn();
    }
  });
}

void GuardProcess::turn() {
  if (!alive() || guard_ == nullptr) {
    return;
  }
  running_ = true;
  parked_ = false;
  bool goes_on = true;
  try {
    goes_on = guard_->turn();
    running_ = false;
  } catch (const Parked&) {
    running_ = false;
    parked_ = true;
    if (watched_.until_ns != 0) {
      world_.at(Instant{Duration{watched_.until_ns}}, [this, life = life_] {
        if (life == life_ && parked_) {
          plan_turn(Duration::zero());
        }
      });
    }
    return;
  } catch (const Killed&) {
    running_ = false;
    die(world_.random.chance(800) ? os::Ended{2, SIGKILL} : os::Ended{kAborted, SIGABRT});
    return;
  } catch (const Renewed& renewed) {
    running_ = false;
    renew(renewed);
    return;
  }
  look_at_store();
  if (!goes_on) {
    leave();
    return;
  }
  check_descriptors();
  plan_turn(world_.random.skewed(microseconds{2}, milliseconds{2}));
}

void GuardProcess::leave() {
  word_ = guard_->end();
  world_.note("guard", "leaves with " + std::to_string(word_));
  die({1, word_});
}

void GuardProcess::kill() {
  if (alive() && !running_) {
    world_.note("fault", "kill -9 of the guard");
    die({2, SIGKILL});
  }
}

void GuardProcess::die(os::Ended how) {
  ++life_;
  planned_ = false;
  guard_.reset();
  files_.clear();
  last_snapshot_.reset();
  world_.end(process_, how);
}

void GuardProcess::step() {
  if (strike_in_ > 0 && --strike_in_ == 0) {
    world_.note("fault", "kill -9 of the guard at a call");
    throw Killed{};
  }
}

// --- becoming another program
// ---------------------------------------------------------------------
void GuardProcess::renew(const Renewed& renewed) {
  ++life_;
  planned_ = false;
  guard_.reset();
  process_->program = renewed.program;
  world_.note("guard", "becomes program " + std::to_string(renewed.program));
  const auto state = std::dynamic_pointer_cast<Memory>(file(renewed.state));
  std::erase_if(files_, [this, &renewed](const auto& entry) {
    return !inherited_.contains(entry.first) || entry.first == renewed.state;
  });
  inherited_.clear();
  world_.after(world_.random.skewed(milliseconds{1}, milliseconds{50}),
               [this, life = life_, text = state->content()] {
                 if (life == life_ && alive()) {
                   go_on(text);
                 }
               });
}

void GuardProcess::go_on(const std::string& text) {
  const guard::Renewal renewal = guard::parse_renewal(text);
  guard_ = std::make_unique<guard::Guard>(*this);
  for (const auto& [name, fd] : renewal.fds) {
    world_.expect(file(fd) != nullptr, "ownership",
                  "descriptor \"" + name + "\" did not come along to the guard's new program");
    world_.expect(guard_->store(fd, name), "bounded", "no room for \"" + name + "\"");
  }
  world_.expect(std::dynamic_pointer_cast<PacketEnd>(file(renewal.control)) != nullptr &&
                    stored("snapshot") != nullptr && renewal.master > 0,
                "ownership", "the guard's new program lacks master or snapshot");
  guard_->adopt(renewal.master, renewal.control, renewal.signals);
  parked_ = false;
  try {
    guard_->begin();
    plan_turn(microseconds{10});
  } catch (const Killed&) {
    die({2, SIGKILL});
  }
}

// --- what happens to it
// ---------------------------------------------------------------------------
guard::Awake GuardProcess::awake(const guard::Watched& watched) const {
  const auto readable = [this](int fd) {
    const FilePtr open = file(fd);
    return open != nullptr && open->readable();
  };
  const FilePtr master = file(watched.master);
  const bool room = watched.master_room && master != nullptr && master->writable();
  return {!pending_signals_.empty(), readable(watched.master) || room, room,
          readable(watched.successor)};
}

void GuardProcess::poke() {
  if (!alive() || guard_ == nullptr || !parked_) {
    return;
  }
  const guard::Awake now = awake(watched_);
  if (now.signals || now.master || now.successor) {
    plan_turn(world_.random.skewed(microseconds{5}, milliseconds{8}));
  }
}

void GuardProcess::on_child_ended(const ProcessPtr& child) {
  if (pending_signals_.insert(SIGCHLD).second) {
    pending_death_ = child->pid;  // the others are not told apart any more
  }
  poke();
}

void GuardProcess::on_signal(int signal) {
  if (alive()) {
    pending_signals_.insert(signal);
    poke();
  }
}

// --- what is known of it
// --------------------------------------------------------------------------
FilePtr GuardProcess::stored(std::string_view name) const {
  if (guard_ != nullptr) {
    for (const guard::Guard::Stored& entry : guard_->stored()) {
      if (name == entry.name.data()) {
        return file(entry.fd);
      }
    }
  }
  return nullptr;
}

bool GuardProcess::has_mail() const {
  return !alive() || guard_ == nullptr ||
         std::any_of(files_.begin(), files_.end(), [](const auto& entry) {
           return entry.second->kind() == FileKind::kPacket && entry.second->readable();
         });
}

// A snapshot that holds everything makes up for what could not be written down before.
void GuardProcess::look_at_store() {
  const FilePtr snapshot = stored("snapshot");
  if (snapshot == last_snapshot_) {
    return;
  }
  last_snapshot_ = snapshot;
  if (const auto memory = std::dynamic_pointer_cast<Memory>(snapshot);
      memory != nullptr && memory->written_after == world_.snapshots_lost) {
    world_.snapshot_lossy = false;
  }
}

void GuardProcess::check_descriptors() const {
  std::set<int> needed;
  for (const guard::Guard::Stored& entry : guard_->stored()) {
    needed.insert(entry.fd);
  }
  int sockets = 0;
  for (const auto& [fd, open] : files_) {
    const bool socket = open->kind() == FileKind::kPacket && !needed.contains(fd);
    sockets += socket ? 1 : 0;
    world_.expect(
        socket || fd == predecessor_ || needed.contains(fd), "descriptors",
        "the guard has a " + std::string(name(open->kind())) + " open that it does not keep");
  }
  world_.expect(sockets <= 2, "descriptors",
                "the guard has " + std::to_string(sockets) + " sockets to masters");
}

// --- guard::System
// --------------------------------------------------------------------------------
int GuardProcess::adopt(FilePtr open) {
  int fd = 3;
  while (files_.contains(fd)) {
    ++fd;
  }
  files_[fd] = std::move(open);
  return fd;
}

FilePtr GuardProcess::file(int fd) const {
  const auto found = files_.find(fd);
  return found == files_.end() ? nullptr : found->second;
}

int GuardProcess::begin() {
  step();
  return 0;
}

guard::Awake GuardProcess::wait(const guard::Watched& watched) {
  const guard::Awake now = awake(watched);
  if (!now.signals && !now.master && !now.successor &&
      (watched.until_ns == 0 || now_ns() < watched.until_ns)) {
    watched_ = watched;
    throw Parked{};
  }
  step();
  return now;
}

// As from a signalfd: the lowest number first, each at most once.
bool GuardProcess::next_signal(guard::Signal& signal) {
  step();
  if (pending_signals_.empty()) {
    return false;
  }
  signal.number = *pending_signals_.begin();
  signal.child = signal.number == SIGCHLD ? pending_death_ : 0;
  pending_signals_.erase(pending_signals_.begin());
  return true;
}

guard::Heard GuardProcess::receive(int socket, guard::Message& message) {
  step();
  const auto end = std::dynamic_pointer_cast<PacketEnd>(file(socket));
  world_.expect(end != nullptr, "descriptors", "the guard reads from what is no socket");
  Packet packet;
  switch (end->receive(packet)) {
    case Kind::kWouldBlock:
      return guard::Heard::kNothing;
    case Kind::kClosed:
      return guard::Heard::kClosed;
    case Kind::kDone:
      break;
  }
  message.length = std::min(packet.text.size(), message.text.size());
  std::memcpy(message.text.data(), packet.text.data(), message.length);
  message.fd_count = 0;
  for (FilePtr& passed : packet.files) {
    message.fds.at(message.fd_count++) = adopt(std::move(passed));
  }
  world_.note("guard", "hears " + packet.text.substr(0, packet.text.find('\n')) +
                           (packet.text.find("FDNAME=") == std::string::npos
                                ? ""
                                : " " + packet.text.substr(packet.text.find("FDNAME=") + 7)));
  step();
  return guard::Heard::kMessage;
}

bool GuardProcess::send(int socket, std::string_view text, std::span<const int> fds) {
  step();
  std::vector<FilePtr> passed;
  for (const int fd : fds) {
    passed.push_back(file(fd));
    world_.expect(passed.back() != nullptr, "descriptors", "the guard sends what it has not got");
  }
  bool sent = false;
  if (socket < 0) {
    return false;  // closed already
  }
  if (const auto end = std::dynamic_pointer_cast<PacketEnd>(file(socket))) {
    sent = end->send({std::string(text), std::move(passed)}) == Kind::kDone;
    constexpr std::string_view kExited = "X_EINHORN_EXITED=";
    if (sent && text.starts_with(kExited)) {
      Pid told = 0;
      std::from_chars(text.data() + kExited.size(), text.data() + text.size(), told);
      told_.insert(told);
    }
  } else if (const auto stream = std::dynamic_pointer_cast<Stream>(file(socket))) {
    sent = stream->send(text, std::move(passed)).kind == Kind::kDone;
  } else {
    world_.fail("descriptors", "the guard sends to what is no socket");
  }
  step();
  return sent;
}

void GuardProcess::close(int fd) {
  world_.expect(files_.erase(fd) == 1, "descriptors",
                "the guard closes descriptor " + std::to_string(fd) + ", which is not open");
  inherited_.erase(fd);
  if (fd == predecessor_) {
    predecessor_ = -1;
  }
  step();
}

void GuardProcess::set_inherited(int fd, bool inherited) {
  world_.expect(files_.contains(fd), "descriptors", "the guard passes on what is not open");
  if (inherited) {
    inherited_.insert(fd);
  } else {
    inherited_.erase(fd);
  }
}

guard::Started GuardProcess::start_master() {
  step();
  if (world_.no_descriptors) {
    return {-1, -1, "socketpair", EMFILE};
  }
  if (world_.no_processes && world_.random.chance(500)) {
    return {-1, -1, "fork", EAGAIN};
  }
  auto [ours, theirs] = PacketEnd::pair(world_.census, world_.plan.packets);
  const ProcessPtr process = world_.start_process(ProcessKind::kMaster, process_->pid);
  process->program = process_->program;
  world_.note("guard", "starts master " + std::to_string(process->pid));
  const int fd = adopt(std::move(ours));
  start_(process, std::move(theirs));
  step();
  return {process->pid, fd, nullptr, 0};
}

guard::Look GuardProcess::look_at(pid_t pid, guard::Death& death) {
  step();
  bool any = false;
  for (const auto& [number, process] : world_.processes()) {
    if (process->parent != process_->pid || (pid > 0 && number != pid)) {
      continue;
    }
    any = true;
    if (process->dead) {
      death = {number, process->ended.code, process->ended.status};
      return guard::Look::kDead;
    }
  }
  death = {};
  return any ? guard::Look::kAlive : guard::Look::kNoChild;
}

void GuardProcess::reap(pid_t pid) {
  step();
  const ProcessPtr child = world_.find(pid);
  world_.expect(child != nullptr && child->parent == process_->pid, "reaped-once",
                "the guard reaps process " + std::to_string(pid) + ", which is no child of it");
  world_.expect(child->kind == ProcessKind::kMaster || told_.erase(pid) > 0, "reaped-once",
                "the guard reaps process " + std::to_string(pid) + ", and has told nobody");
  world_.note("guard", "reaps " + std::to_string(pid));
  world_.reap(child);
  step();
}

void GuardProcess::kill(pid_t pid) {
  step();
  const ProcessPtr child = world_.find(pid);
  world_.expect(
      child != nullptr && child->parent == process_->pid && child->kind == ProcessKind::kMaster,
      "no-stranger", "the guard kills process " + std::to_string(pid));
  world_.note("guard", "kills " + std::to_string(pid));
  world_.deliver(child, SIGKILL, false);
  step();
}

int GuardProcess::create_state() {
  step();
  if (world_.no_descriptors) {
    errno = EMFILE;
    return -1;
  }
  const int fd = adopt(std::make_shared<Memory>(world_.census));
  inherited_.insert(fd);
  return fd;
}

int GuardProcess::write_state(int state, std::string_view text) {
  step();
  const auto memory = std::dynamic_pointer_cast<Memory>(file(state));
  world_.expect(memory != nullptr, "descriptors", "the guard writes to what is no file");
  if (world_.snapshot_full && world_.random.chance(100)) {
    return ENOSPC;
  }
  memory->write(memory->size(), text);
  return 0;
}

int GuardProcess::execute(int program, int state) {
  step();
  const auto executable = std::dynamic_pointer_cast<Program>(file(program));
  world_.expect(executable != nullptr, "descriptors", "the guard executes what is no program");
  if (world_.faults && world_.random.chance(world_.plan.bad_renewals)) {
    return world_.random.pick<int>({ENOENT, EACCES, E2BIG, ENOMEM, ETXTBSY});
  }
  throw Renewed{state, executable->version};
}

// What a service manager does with it: every word is one it knows, READY=1 comes with our pid, a
// socket that is to be kept comes along.
void GuardProcess::tell_manager(std::string_view text, std::span<const int> fds) {
  step();
  world_.note("guard", "tells the service manager " + std::string(text.substr(0, text.find('\n'))));
  const bool store = text.starts_with("FDSTORE=1\nFDNAME=");
  world_.expect(fds.size() == (store ? 1U : 0U), "manager", "descriptors without a name");
  if (store) {
    world_.expect(file(fds[0])->kind() == FileKind::kService, "manager",
                  "what is kept is no listening socket");
  }
  if (text.starts_with("READY=1\n") || text.starts_with("RELOADING=1\n") ||
      text.starts_with("STOPPING=1\n")) {
    manager_knows_ = text.substr(0, text.find('\n'));
  }
  if (text.starts_with("READY=1\n")) {
    world_.expect(text.find("\nMAINPID=" + std::to_string(process_->pid) + "\n") != text.npos,
                  "manager", "READY=1 of another pid than the guard's");
  }
  watchdog_at_ = text.find("WATCHDOG=1\n") != text.npos ? world_.now() : watchdog_at_;
}

// Most lives have a service manager, and some of them one with a watchdog.
std::int64_t GuardProcess::manager_watchdog_us() {
  if (world_.plan.log_json) {
    return -1;
  }
  return world_.plan.listeners == 3 ? std::chrono::duration_cast<microseconds>(kWatchdog).count()
                                    : 0;
}

void GuardProcess::say(const char* message) {
  gave_up_ = gave_up_ || std::strstr(message, "giving up") != nullptr;
  world_.note("guard", message);
}

}  // namespace einhorn::sim
