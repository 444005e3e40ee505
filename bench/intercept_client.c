/* intercept_client PORT CONNECTIONS REQUESTS: opens so many connections to 127.0.0.1:PORT, one after
 * the other, sends so many requests on each, and prints how many nanoseconds all of it took. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char kRequest[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((unsigned short)atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int connections = atoi(argv[2]), requests = atoi(argv[3]);
  struct timespec began, ended;
  struct linger at_once = {.l_onoff = 1};
  clock_gettime(CLOCK_MONOTONIC, &began);
  for (int i = 0; i < connections; ++i) {
    int stream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(stream, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); /* no TIME_WAIT */
    if (connect(stream, (struct sockaddr*)&address, sizeof address) != 0) return 1;
    for (int k = 0; k < requests; ++k) {
      char answer[512];
      if (write(stream, kRequest, sizeof kRequest - 1) < 0 ||
          read(stream, answer, sizeof answer) <= 0) {
        return 1;
      }
    }
    close(stream);
  }
  clock_gettime(CLOCK_MONOTONIC, &ended);
  printf("%lld\n", (long long)(ended.tv_sec - began.tv_sec) * 1000000000LL +
                       (ended.tv_nsec - began.tv_nsec));
  return 0;
}
