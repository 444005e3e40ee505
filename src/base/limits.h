// Every limit of the program, in one place. Hitting one is counted and said.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/instant.h"

namespace einhorn::limits {

// --- the command socket -----------------------------------------------------------------------
inline constexpr std::size_t kMaxConnections = 512;          // clients at a time
inline constexpr std::size_t kMaxLineBytes = 64 * 1024;      // one request, newline included
inline constexpr std::size_t kMaxPendingOutput = 8u << 20u;  // unsent bytes of one client
inline constexpr int kMaxNesting = 32;                       // collections within collections
inline constexpr std::size_t kMaxDocumentNodes = 4096;       // scalars and collections a message
inline constexpr std::size_t kMaxScalarBytes = 64 * 1024;
inline constexpr std::size_t kMaxRequestsPerTurn = 16;            // of one client, before others
inline constexpr std::chrono::seconds kWorkerMessageTimeout{30};  // a silent, unprivileged client

// --- the event stream ---------------------------------------------------------------------------
inline constexpr std::size_t kMaxEventSubscribers = 64;
inline constexpr std::size_t kMaxEventBacklog = 1u << 20u;     // unsent bytes of one subscriber
inline constexpr std::size_t kMaxEventsKeptBytes = 1u << 20u;  // for those who come back
inline constexpr std::chrono::seconds kEventsKeptFor{60};      // after the last one has gone
inline constexpr double kLeastSampleInterval = 0.1;            // seconds
inline constexpr double kMostSampleInterval = 3600;

// --- workers ----------------------------------------------------------------------------------
inline constexpr std::uint32_t kMaxWorkers = 100'000;
inline constexpr std::size_t kMaxRequestIdBytes = 256;  // of a ping; longer ones are cut
inline constexpr std::size_t kMaxStatusBytes = 256;     // STATUS= of a worker; longer ones are cut
inline constexpr std::size_t kMaxListeners = 256;
inline constexpr std::size_t kMaxSpawnsPerTurn = 64;
inline constexpr std::size_t kMaxEventsPerTurn = 256;

// --- hooks (docs/hooks.md) ----------------------------------------------------------------------
inline constexpr std::size_t kMaxHooksBefore = 64;  // at a time, of those that are waited for
inline constexpr std::size_t kMaxHooksAfter = 32;   // and of all others
inline constexpr std::size_t kMaxHooksWaiting = 4096;
inline constexpr std::size_t kMaxHookLines = 200;    // of one hook's output, in the log
inline constexpr std::size_t kMaxHookLine = 1000;    // bytes
inline constexpr std::size_t kMaxHookLastLines = 5;  // in an answer
inline constexpr std::size_t kMaxHookReads = 16;     // a turn, of 4 KiB each

// --- starting things again --------------------------------------------------------------------
inline constexpr std::chrono::seconds kMaxSpinupInterval{30};
inline constexpr double kSpinupBackoffFactor = 1.5;
inline constexpr std::chrono::milliseconds kMasterRestartDelayFirst{0};
inline constexpr std::chrono::seconds kMasterRestartDelayMost{10};

// --- the snapshot -----------------------------------------------------------------------------
inline constexpr std::size_t kMaxRecordBytes = 4u << 20u;
inline constexpr std::size_t kMaxSnapshotBytes = 256u << 20u;
inline constexpr std::size_t kSnapshotSlackBytes = 256 * 1024;  // garbage kept before compacting
inline constexpr std::size_t kMaxStoredDescriptors = 4096;
inline constexpr std::size_t kMaxStoredPipes = 3072;  // of captured workers, among these

}  // namespace einhorn::limits
