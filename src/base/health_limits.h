// Limits of what keeps workers honest (pool/health.h, master/examiner.h); see base/limits.h.
#pragma once

#include <cstddef>

namespace einhorn::limits {

inline constexpr std::size_t kMaxBusyRequests = 64;  // of one worker, each with its time
inline constexpr std::size_t kMaxEndedEarly = 16;    // of one worker
inline constexpr std::size_t kMaxExaminations = 8;   // stacks that are taken at a time
inline constexpr std::size_t kMaxCasualties = 10;    // kept for `state`
inline constexpr std::size_t kMaxStackFrames = 64;   // of a thread
inline constexpr std::size_t kMaxStackLines = 200;
inline constexpr std::size_t kMaxStackLine = 300;
inline constexpr std::size_t kMaxSamplesPerTurn = 64;  // workers whose processes are looked at

}  // namespace einhorn::limits
