/* intercept_server PORT: a small HTTP server that knows nothing of Einhorn: it binds 127.0.0.1:PORT
 * itself (0: any), waits with epoll, answers each request and keeps the connection. When it listens
 * it writes a line with the time, its pid and its port into the file that $BENCH_LISTENING names. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char kAnswer[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

static void say_listening(int listener) {
  const char* path = getenv("BENCH_LISTENING");
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  int file = path != NULL ? open(path, O_WRONLY | O_APPEND) : -1;
  if (file < 0 || getsockname(listener, (struct sockaddr*)&address, &length) != 0) return;
  dprintf(file, "%lld %d %d\n", (long long)now.tv_sec * 1000000000LL + now.tv_nsec, (int)getpid(),
          (int)ntohs(address.sin_port));
  close(file);
}

int main(int argc, char** argv) {
  int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((unsigned short)atoi(argc > 1 ? argv[1] : "0")),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr*)&address, sizeof address) != 0 ||
      listen(listener, 512) != 0) {
    perror("bind");
    return 1;
  }
  say_listening(listener);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[64];
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int count = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < count; ++i) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        int accepted;
        while ((accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
          event.events = EPOLLIN;
          event.data.fd = accepted;
          epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &event);
        }
        continue;
      }
      char request[4096];
      if (read(fd, request, sizeof request) <= 0 ||
          write(fd, kAnswer, sizeof kAnswer - 1) < 0) {
        close(fd);
      }
    }
  }
}
