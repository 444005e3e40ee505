#include "sim/readers.h"

#include <algorithm>
#include <cerrno>

#include "base/key_values.h"
#include "base/numbers.h"

namespace einhorn::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

}  // namespace

bool Readers::is_reader(const os::SpawnSpec& spec) {
  return std::ranges::any_of(spec.arguments, [](const std::string& word) {
    return word == "--capture-fd" || word == "--companion";
  });
}

Result<os::Spawned> Readers::start(SimulatedKernel& by, const os::SpawnSpec& spec) {
  if (world_.no_processes && world_.random.chance(500)) {
    return Error{EAGAIN, "spawn " + spec.program, ""};
  }
  const ProcessPtr process =
      world_.start_process(ProcessKind::kReader, spec.sibling ? by.own_parent() : by.own_pid());
  os::Spawned spawned;
  spawned.pid = process->pid;
  spawned.pidfd = by.adopt(std::make_shared<Pidfd>(world_.census, process));
  world_.note("process",
              std::to_string(process->pid) + " is beside the pool: " + spec.arguments.at(1));
  if (world_.faults && world_.random.chance(50)) {
    world_.end(process, {1, 127});
    spawned.failed = Error{ENOENT, "exec " + spec.program, ""};
    return spawned;
  }
  auto reader = std::make_shared<Reader>();
  reader->process = process;
  reader->line = std::dynamic_pointer_cast<PacketEnd>(by.file(spec.descriptors.at(0).from));
  reader->silent = world_.faults && world_.random.chance(100);
  readers_.push_back(std::move(reader));
  return spawned;
}

void Readers::poke() {
  for (const auto& reader : readers_) {
    const bool over = std::ranges::any_of(reader->pipes, [](const auto& entry) {
      return entry.second.out->readable() && entry.second.error->readable();
    });
    if (reader->busy || !(over || (reader->line != nullptr && reader->line->readable()))) {
      continue;
    }
    reader->busy = true;
    const bool slow = world_.faults && world_.random.chance(30);
    world_.after(slow ? world_.random.duration(milliseconds{100}, seconds{5})
                      : world_.random.duration(std::chrono::microseconds{10}, milliseconds{5}),
                 [this, reader] {
                   reader->busy = false;
                   if (!reader->process->dead) {
                     act(*reader);
                   }
                 });
  }
}

void Readers::act(Reader& reader) {
  Packet packet;
  while (reader.line != nullptr) {
    const os::Transfer::Kind kind = reader.line->receive(packet);
    if (kind == os::Transfer::Kind::kWouldBlock) {
      break;
    }
    if (kind == os::Transfer::Kind::kClosed) {
      reader.line = nullptr;
      break;
    }
    if (!hear(reader, packet)) {
      const ProcessPtr process = reader.process;
      world_.end(process, {1, 0});
      return;
    }
  }
  for (auto it = reader.pipes.begin(); it != reader.pipes.end();) {
    if (!it->second.out->readable() || !it->second.error->readable()) {
      ++it;
      continue;
    }
    if (reader.line != nullptr) {
      reader.line->send({"GONE=" + std::to_string(it->first), {}});
    }
    it = reader.pipes.erase(it);
  }
  if (reader.line == nullptr && reader.pipes.empty()) {
    world_.end(ProcessPtr(reader.process), {1, 0});
  }
}

// False: it was told to leave.
bool Readers::hear(Reader& reader, const Packet& packet) {
  const KeyValues lines = key_values(packet.text);
  const std::string_view verb = lines.empty() ? "" : lines[0].first;
  if (verb == "PIPES") {
    world_.expect(packet.files.size() == 2, "output", "a reader was told of no pipes");
    reader.pipes.try_emplace(number_of(lines[0].second),
                             Pipes{std::dynamic_pointer_cast<OutputEnd>(packet.files[0]),
                                   std::dynamic_pointer_cast<OutputEnd>(packet.files[1])});
  } else if (verb == "TAIL" && !reader.silent) {
    reader.line->send({"TAIL=" + std::string(lines[0].second) + "\nout=one\nerr=two", {}});
  } else if (verb == "FINISH" && !reader.silent) {
    reader.line->send({"FINISHED=1", {}});
  }
  return verb != "LEAVE";
}

void Readers::forget(const ProcessPtr& dead) {
  std::erase_if(readers_, [&dead](const auto& reader) {
    if (reader->process != dead) {
      return false;
    }
    reader->line = nullptr;  // an event may still hold it
    reader->pipes.clear();
    return true;
  });
}

void Readers::clear() {
  for (const auto& reader : readers_) {
    reader->line = nullptr;
    reader->pipes.clear();
  }
}

ProcessPtr Readers::any() const { return readers_.empty() ? nullptr : readers_.front()->process; }

}  // namespace einhorn::sim
