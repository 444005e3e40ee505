#include "sim/supervisors.h"

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "base/key_values.h"
#include "base/numbers.h"

namespace einhorn::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

}  // namespace

bool Supervisors::is_one(const os::SpawnSpec& spec) {
  return std::find(spec.arguments.begin(), spec.arguments.end(), "--intercept-fd") !=
         spec.arguments.end();
}

Result<os::Spawned> Supervisors::start(SimulatedKernel& by, const os::SpawnSpec& spec) {
  if (world_.no_processes && world_.random.chance(500)) {
    return Error{EAGAIN, "spawn " + spec.program, ""};
  }
  const ProcessPtr process =
      world_.start_process(ProcessKind::kSupervisor, spec.sibling ? by.own_parent() : by.own_pid());
  os::Spawned spawned;
  spawned.pid = process->pid;
  spawned.pidfd = by.adopt(std::make_shared<Pidfd>(world_.census, process));
  world_.note("process", std::to_string(process->pid) + " answers what programs bind");
  if (world_.faults && world_.random.chance(50)) {
    world_.end(process, {1, 127});
    spawned.failed = Error{ENOENT, "exec " + spec.program, ""};
    return spawned;
  }
  auto supervisor = std::make_shared<Supervisor>();
  supervisor->process = process;
  supervisor->line = std::dynamic_pointer_cast<PacketEnd>(by.file(spec.descriptors.at(0).from));
  supervisor->silent = world_.faults && world_.random.chance(100);
  supervisors_.push_back(std::move(supervisor));
  return spawned;
}

bool Supervisors::has_something(const Supervisor& supervisor) {
  if (supervisor.line != nullptr && (supervisor.line->readable() ||
                                     (!supervisor.unsent.empty() && supervisor.line->writable()))) {
    return true;
  }
  return std::ranges::any_of(supervisor.watched,
                             [](const auto& entry) { return entry.second->readable(); });
}

void Supervisors::poke() {
  for (const SupervisorPtr& supervisor : supervisors_) {
    if (supervisor->busy || !has_something(*supervisor)) {
      continue;
    }
    supervisor->busy = true;
    const bool slow = world_.faults && world_.random.chance(30);
    world_.after(slow ? world_.random.duration(milliseconds{100}, seconds{5})
                      : world_.random.duration(microseconds{10}, milliseconds{5}),
                 [this, supervisor] {
                   supervisor->busy = false;
                   if (!supervisor->process->dead) {
                     act(supervisor);
                   }
                 });
  }
}

void Supervisors::act(const SupervisorPtr& supervisor) {
  Packet packet;
  while (supervisor->line != nullptr) {
    const os::Transfer::Kind kind = supervisor->line->receive(packet);
    if (kind == os::Transfer::Kind::kWouldBlock) {
      break;
    }
    // Neither master nor guard is there any more, or it is told so. What a program asks meanwhile
    // is for the next one.
    if (kind == os::Transfer::Kind::kClosed || !hear(supervisor, packet)) {
      world_.end(ProcessPtr(supervisor->process), {1, 0});
      return;
    }
  }
  answer(*supervisor);
  flush(*supervisor);
}

void Supervisors::answer(Supervisor& supervisor) {
  for (auto it = supervisor.watched.begin(); it != supervisor.watched.end();) {
    const auto& [epoch, notify] = *it;
    if (notify->process->dead) {
      supervisor.listening.erase(epoch);
      say(supervisor, "GONE=" + std::to_string(epoch));
      it = supervisor.watched.erase(it);
      continue;
    }
    if (notify->asks) {
      notify->asks = false;
      if (!supervisor.formed && world_.random.chance(200)) {
        supervisor.formed = true;
        say(supervisor, "FORM=0\nnumber=1", {std::make_shared<Form>(world_.census)});
      }
      if (world_.random.chance(100)) {
        say(supervisor, "SAY=error\nevent=intercept_option\ntext=it wants the opposite");
      }
      supervisor.listening.insert(epoch);
      say(supervisor, "LISTENING=" + std::to_string(epoch) + "\nshared=0");
    }
    ++it;
  }
}

bool Supervisors::hear(const SupervisorPtr& supervisor, const Packet& packet) {
  const KeyValues lines = key_values(packet.text);
  const std::string_view verb = lines.empty() ? "" : lines[0].first;
  const std::uint64_t number = lines.empty() ? 0 : number_of(lines[0].second);
  if (verb == "WORKER") {
    const auto notify = packet.files.size() == 1
                            ? std::dynamic_pointer_cast<Notify>(packet.files[0])
                            : std::shared_ptr<Notify>();
    world_.expect(notify != nullptr, "intercept", "a supervisor was told of no notify descriptor");
    world_.expect(
        !notify->process->known || notify->process->worker.epoch.value == number, "intercept",
        "the notify descriptor of epoch " + std::to_string(notify->process->worker.epoch.value) +
            " was given as that of " + std::to_string(number));
    const bool again = number_of(value_of(lines, "again")) != 0;
    if (!again || !supervisor->watched.contains(number)) {
      supervisor->watched[number] = notify;
    }
  } else if (verb == "SHARED" || verb == "FORM") {
    world_.expect(
        packet.files.size() == 1 &&
            packet.files[0]->kind() == (verb == "FORM" ? FileKind::kForm : FileKind::kService),
        "intercept", "a supervisor was given something else than a socket");
    supervisor->formed = supervisor->formed || verb == "FORM";
  } else if (verb == "DRAIN" && !supervisor->silent) {
    world_.after(world_.random.skewed(milliseconds{1}, seconds{4}), [this, supervisor, number] {
      if (!supervisor->process->dead && supervisor->line != nullptr) {
        say(*supervisor, "DRAINED=" + std::to_string(number));
        flush(*supervisor);
      }
    });
  } else if (verb == "SYNC") {
    for (const std::uint64_t epoch : supervisor->listening) {
      say(*supervisor, "LISTENING=" + std::to_string(epoch) + "\nshared=0");
    }
  }
  return verb != "LEAVE";
}

void Supervisors::say(Supervisor& supervisor, std::string text, std::vector<FilePtr> files) {
  Packet packet;
  packet.text = std::move(text);
  packet.files = std::move(files);
  supervisor.unsent.push_back(std::move(packet));
}

void Supervisors::flush(Supervisor& supervisor) {
  while (!supervisor.unsent.empty() && supervisor.line != nullptr) {
    Packet packet = supervisor.unsent.front();
    if (supervisor.line->send(std::move(packet)) == os::Transfer::Kind::kWouldBlock) {
      return;
    }
    supervisor.unsent.pop_front();
  }
}

void Supervisors::forget(const ProcessPtr& dead) {
  std::erase_if(supervisors_, [&dead](const SupervisorPtr& supervisor) {
    if (supervisor->process != dead) {
      return false;
    }
    supervisor->line = nullptr;  // an event may still hold it
    supervisor->watched.clear();
    supervisor->unsent.clear();
    return true;
  });
}

void Supervisors::clear() {
  for (const SupervisorPtr& supervisor : supervisors_) {
    supervisor->line = nullptr;
    supervisor->watched.clear();
    supervisor->unsent.clear();
  }
}

ProcessPtr Supervisors::any() const {
  return supervisors_.empty() ? nullptr : supervisors_.front()->process;
}

}  // namespace einhorn::sim
