// Readers of workers' output (--capture), as models: they hold the pipes they are told of, say when
// nobody can write to one any more, answer what the dead said last, leave when told to; they are
// slow, silent and killed. And agents (--agent), as far as a master knows them: readers that are told
// of no pipes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "os/kernel.h"
#include "sim/files.h"
#include "sim/process.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"

namespace einhorn::sim {

class Readers {
 public:
  explicit Readers(World& world) : world_(world) {}

  // Whether that is what somebody who starts this program wants.
  [[nodiscard]] static bool is_reader(const os::SpawnSpec& spec);
  Result<os::Spawned> start(SimulatedKernel& by, const os::SpawnSpec& spec);
  // Looks whether one of them has something to do.
  void poke();
  void forget(const ProcessPtr& dead);
  void clear();  // at the end of everything
  // Null: there is none.
  [[nodiscard]] ProcessPtr any() const;

 private:
  struct Pipes {
    std::shared_ptr<OutputEnd> out;
    std::shared_ptr<OutputEnd> error;
  };
  struct Reader {
    ProcessPtr process;
    std::shared_ptr<PacketEnd> line;
    std::map<std::uint64_t, Pipes> pipes;
    bool busy = false;
    bool silent = false;  // it never says what the dead said last
  };
  void act(Reader& reader);
  bool hear(Reader& reader, const Packet& packet);

  World& world_;
  std::vector<std::shared_ptr<Reader>> readers_;
};

}  // namespace einhorn::sim
