/* talk BYTES LENGTH [RATE [leave]]  writes numbered lines of LENGTH bytes to standard output, BYTES in all,
 *                           at most RATE bytes a second (0: as fast as they are taken); then
 *                           makes a file "said" beside it and waits for ever, or leaves.
 * talk --check FILE LENGTH LINES  whether each of these lines is in the file, whatever is in front
 *                           of it on its line; prints how many are, and how many are twice. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int check(const char *path, size_t lines) {
  FILE *file = fopen(path, "r");
  unsigned char *seen = calloc(lines + 1, 1);
  char *line = NULL;
  size_t size = 0;
  size_t there = 0;
  size_t twice = 0;
  if (file == NULL || seen == NULL) {
    return 1;
  }
  while (getline(&line, &size, file) > 0) {
    const char *number = strstr(line, "line=");
    const size_t which = number != NULL ? strtoul(number + 5, NULL, 10) : 0;
    if (which > 0 && which <= lines) {
      there += seen[which] == 0;
      twice += seen[which] != 0;
      seen[which] = 1;
    }
  }
  printf("%zu %zu\n", there, twice);
  return 0;
}

int main(int argc, char **argv) {
  static char block[64 * 1024];
  if (argc == 5 && strcmp(argv[1], "--check") == 0) {
    return check(argv[2], strtoul(argv[4], NULL, 10));
  }
  if (argc < 3) {
    return 2;
  }
  const size_t bytes = strtoul(argv[1], NULL, 10);
  const size_t length = strtoul(argv[2], NULL, 10);
  const double rate = argc > 3 ? strtod(argv[3], NULL) : 0;
  const size_t a_block = sizeof(block) / length;
  const double begin = now();
  size_t number = 0;
  for (size_t done = 0; done < bytes;) {
    size_t count = 0;
    for (; count < a_block && done + count * length < bytes; ++count) {
      char *line = block + count * length;
      const int head = snprintf(line, length, "line=%zu ", ++number);
      memset(line + head, 'x', length - (size_t)head - 1);
      line[length - 1] = '\n';
    }
    for (size_t at = 0; at < count * length;) {
      const ssize_t got = write(1, block + at, count * length - at);
      if (got <= 0) {
        return 1;
      }
      at += (size_t)got;
    }
    done += count * length;
    while (rate > 0 && (double)done / rate > now() - begin) {
      usleep(200);
    }
  }
  fprintf(stderr, "said %zu lines in %.3f s\n", number, now() - begin);
  FILE *said = fopen("said", "w");
  if (said != NULL) {
    fprintf(said, "%zu %.6f\n", number, now() - begin);
    fclose(said);
  }
  while (argc < 5) {
    pause();
  }
  return 0;
}
