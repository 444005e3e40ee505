#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace einhorn {

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "einhorn: CHECK failed: %s at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace einhorn
