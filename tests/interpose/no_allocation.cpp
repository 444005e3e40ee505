// A library for LD_PRELOAD that ends the guard at its first allocation after its start.
//
// What marks the start is the guard's first step when it runs: it becomes the subreaper of its
// descendants, which nobody else of ours does. From there on any allocation in that process ends it
// with a line on standard error. Said there too: that somebody is watched, so that a test can know
// that it was. With NO_ALLOCATION_TRIP in the environment one allocation is made at once.
#include <dlfcn.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// The C library's own, under their other names.
// NOLINTBEGIN(bugprone-reserved-identifier,cert-*,readability-identifier-naming)
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
}
// NOLINTEND(bugprone-reserved-identifier,cert-*,readability-identifier-naming)

namespace {

pid_t watched = 0;  // a child that shares this memory, or has a copy of it, is somebody else

void say(const char* what) {
  char line[128];  // NOLINT: nothing here may allocate or throw
  const int length = std::snprintf(line, sizeof(line), "no_allocation: %s %d\n", what, getpid());
  static_cast<void>(!write(STDERR_FILENO, line, static_cast<std::size_t>(length)));
}

void look() {
  if (watched != 0 && watched == getpid()) {
    watched = 0;  // abort() may allocate
    say("an allocation in the guard");
    abort();
  }
}

}  // namespace

extern "C" {

void* malloc(std::size_t size) {
  look();
  return __libc_malloc(size);
}

void* calloc(std::size_t count, std::size_t size) {
  look();
  return __libc_calloc(count, size);
}

void* realloc(void* memory, std::size_t size) {
  look();
  return __libc_realloc(memory, size);
}

void* memalign(std::size_t alignment, std::size_t size) {
  look();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) {
  look();
  return __libc_memalign(alignment, size);
}

int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  look();
  *memory = __libc_memalign(alignment, size);
  return *memory != nullptr ? 0 : ENOMEM;
}

int prctl(int option, ...) {
  using Real = int (*)(int, unsigned long, unsigned long, unsigned long, unsigned long);
  static const auto kReal = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "prctl"));
  va_list given;
  va_start(given, option);
  unsigned long arguments[4];  // NOLINT: as above
  for (unsigned long& argument : arguments) {
    argument = va_arg(given, unsigned long);
  }
  va_end(given);
  const int result = kReal(option, arguments[0], arguments[1], arguments[2], arguments[3]);
  if (option == PR_SET_CHILD_SUBREAPER && arguments[0] == 1) {
    say("watches");
    watched = getpid();
    if (getenv("NO_ALLOCATION_TRIP") != nullptr) {
      void* volatile memory = malloc(1);
      free(memory);
    }
  }
  return result;
}
}
