// The one place that retries after EINTR.
#pragma once

#include <cerrno>

namespace einhorn::os {

template <typename Call>
auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

}  // namespace einhorn::os
