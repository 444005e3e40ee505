// The door at which programs ask for sockets that are not watched by a filter; see
// intercept/door.h. A name that the kernel chose, and a secret from which each worker's token is
// made.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "os/unique_fd.h"

namespace einhorn::os {

struct Door {
  UniqueFd fd;         // listening, sequenced packets
  std::string name;    // abstract, printable
  std::string secret;  // 16 random bytes, as hexadecimal digits
};
// For the start of a pool.
[[nodiscard]] Result<Door> open_door();

// What a worker shows to prove that it is the one it says: 32 hexadecimal digits. Pure. Nobody who
// lacks the secret can make it, whatever others he knows.
[[nodiscard]] std::string door_token(std::string_view secret, std::uint64_t epoch,
                                     std::uint32_t slot);

// Why a program of that file could not be reached by LD_PRELOAD; "" it can, as far as one can see.
[[nodiscard]] std::string out_of_preloads_reach(const std::string& path);

// The library that is preloaded, as it is installed with our own program; "" there is none.
[[nodiscard]] std::string preload_library();

}  // namespace einhorn::os
