// Socket options that a program sets on its own socket before bind, and that belong to the shared
// one that it gets instead. The table is in docs/intercept.md.
#pragma once

#include <string>
#include <vector>

namespace einhorn::intercept {

// One option that differs from a new socket's.
struct SetOption {
  int level = 0;
  int name = 0;
  const char* text = "";  // "TCP_NODELAY"
  std::string value;      // as getsockopt gave it
  bool refused = false;   // it can't be that of a shared socket
};

// What a program has set. May wait for as long as the program's own use of the socket makes it.
[[nodiscard]] std::vector<SetOption> options_set(int socket);

// Sets it on the shared socket, unless it has that value already. False: the kernel refused.
bool carry_over(const SetOption& option, int shared);

}  // namespace einhorn::intercept
