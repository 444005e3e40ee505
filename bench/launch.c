/* launch PROGRAM [ARGS]: writes a mark, then becomes PROGRAM. A figure that begins with a program's
 * start begins here, so that the time the benchmark itself takes to fork is in no figure. */
#include <stdio.h>
#include <unistd.h>

#include "mark.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: launch PROGRAM [ARGS]\n");
    return 1;
  }
  mark_write(mark_now(), kMarkLaunched);
  execvp(argv[1], argv + 1);
  perror(argv[1]);
  return 127;
}
