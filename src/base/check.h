// Assertions that stay on in release builds.
//
// CHECK is for invariants of our own: when one is broken the process says where and aborts, and the
// guard starts a new master from the last snapshot. It is never applied to what the kernel, a peer
// or a configuration file says: those are handled as errors.
#pragma once

namespace einhorn {

// Says which expression failed on standard error, and aborts.
[[noreturn]] void check_failed(const char* expression, const char* file, int line);

}  // namespace einhorn

#define CHECK(expression)                               \
  (static_cast<bool>(expression) ? static_cast<void>(0) \
                                 : ::einhorn::check_failed(#expression, __FILE__, __LINE__))
