/* A mark says "this process got here at that time". It is one small write into the FIFO that
 * BENCH_FIFO names; writes of this size into a FIFO are never torn or mixed. The time is taken by
 * the process itself, so it does not matter when the reader wakes up. */
#ifndef BENCH_MARK_H_
#define BENCH_MARK_H_

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum mark_kind {
  kMarkLaunched = 'L', /* the next thing this process does is exec the program under test */
  kMarkMain = 'M',     /* the first statement of a worker's main */
  kMarkAcked = 'A',    /* the master has read this worker's ACK */
};

/* Read by marks.py with the same layout. */
struct mark {
  uint64_t nanoseconds; /* CLOCK_MONOTONIC */
  int32_t pid;
  int32_t kind;
};

static inline uint64_t mark_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Without BENCH_FIFO nobody listens, and nothing is written. */
static inline void mark_write(uint64_t nanoseconds, enum mark_kind kind) {
  const char* path = getenv("BENCH_FIFO");
  if (path == NULL) return;
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  struct mark mark;
  memset(&mark, 0, sizeof mark);
  mark.nanoseconds = nanoseconds;
  mark.pid = (int32_t)getpid();
  mark.kind = (int32_t)kind;
  ssize_t written = write(fd, &mark, sizeof mark);
  (void)written;
  close(fd);
}

#endif
