// Strong identifiers. A worker is a slot and an epoch; a pid is only something to show to people.
#pragma once

#include <compare>
#include <cstdint>

namespace einhorn {

// An integer that can't be mistaken for another kind of integer.
template <typename Tag, typename Rep>
struct StrongId {
  Rep value{};
  friend constexpr auto operator<=>(const StrongId&, const StrongId&) = default;
};

// The lowest free index at the time of the spawn: EINHORN_CHILD_INDEX. Unique among the living.
using Slot = StrongId<struct SlotTag, std::uint32_t>;
// Counts every spawn of a pool's whole life; never used twice.
using Epoch = StrongId<struct EpochTag, std::uint64_t>;
// A version of the user's program: counts upgrades. Starts at 0.
using Version = StrongId<struct VersionTag, std::uint64_t>;

struct WorkerId {
  Slot slot;
  Epoch epoch;
  friend constexpr auto operator<=>(const WorkerId&, const WorkerId&) = default;
};

// What the kernel calls a process. For display, signals and lookups by peers; never an identity.
using Pid = std::int32_t;

}  // namespace einhorn
