// Snapshots in which every field has a value of its own that is not its default. What is in them is
// in wire_snapshot_test.cpp.
#pragma once

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/snapshot.h"

namespace einhorn::wire::testing {

[[nodiscard]] Instant at(std::int64_t nanoseconds);
[[nodiscard]] Settings full_settings();
[[nodiscard]] pool::Config full_config();
[[nodiscard]] pool::Ledger full_ledger();
[[nodiscard]] Program full_program();
[[nodiscard]] ListenerRecord full_listener(std::uint32_t index);
[[nodiscard]] WorkerRecord full_worker(std::uint32_t slot, std::uint64_t epoch);
[[nodiscard]] Snapshot full_snapshot();
// With what came later: health, capture, control groups, configuration, scaling, hooks.
[[nodiscard]] Snapshot whole_snapshot();

// As in a memory file: the page of the spawn note, then the journal.
[[nodiscard]] std::string file_of(const std::string& journal);
// The journal says everything there is, so equal journals are equal snapshots.
void expect_same(const Snapshot& snapshot, const Snapshot& wanted);
[[nodiscard]] Snapshot decode(const std::string& journal);

}  // namespace einhorn::wire::testing
