/* The worker of every figure: says when its main began, and then does what the environment asks:
 *
 *   BENCH_START_MS=N   takes N milliseconds to start (before its ACK)
 *   BENCH_ACK=1        sends a manual ACK to EINHORN_SOCK_PATH and says when the master had read it
 *   BENCH_SERVE=1      answers HTTP requests on EINHORN_FD_0 with its pid, until SIGUSR2
 *
 * Otherwise it waits for the signal that ends it. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "mark.h"

static int asked(const char* name) {
  const char* value = getenv(name);
  return value != NULL ? atoi(value) : 0;
}

static void start_slowly(int milliseconds) {
  struct timespec time = {.tv_sec = milliseconds / 1000,
                          .tv_nsec = (long)(milliseconds % 1000) * 1000000L};
  while (nanosleep(&time, &time) != 0 && errno == EINTR) continue;
}

/* The master closes the connection once it has dealt with the ACK: the end of file is the receipt.
 */
static int send_ack(void) {
  const char* path = getenv("EINHORN_SOCK_PATH");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path == NULL) return 0;
  if (strlen(path) >= sizeof address.sun_path) return -1;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof address) != 0) return -1;
  char message[64];
  int length = snprintf(message, sizeof message, "{\"command\":\"worker:ack\", \"pid\":%d}\n",
                        (int)getpid());
  if (write(fd, message, (size_t)length) != length) return -1;
  while (read(fd, message, sizeof message) > 0) continue;
  close(fd);
  mark_write(mark_now(), kMarkAcked);
  return 0;
}

static void answer(int connection) {
  char request[4096];
  size_t length = 0;
  while (length < sizeof request - 1) {
    ssize_t got = read(connection, request + length, sizeof request - 1 - length);
    if (got <= 0) break;
    length += (size_t)got;
    request[length] = '\0';
    if (strstr(request, "\r\n\r\n") != NULL) {
      char reply[128];
      int size = snprintf(reply, sizeof reply,
                          "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n%07d\n",
                          (int)getpid());
      ssize_t sent = send(connection, reply, (size_t)size, MSG_NOSIGNAL);
      (void)sent;
      break;
    }
  }
  close(connection);
}

static int serve(int listener, int stop) {
  /* Several workers wake for one connection; those that come too late must not block in accept. */
  fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
  struct pollfd waiting[] = {{.fd = stop, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
  for (;;) {
    if (poll(waiting, 2, -1) < 0 && errno != EINTR) return 1;
    if (waiting[0].revents != 0) return 0;
    if (waiting[1].revents == 0) continue;
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection >= 0) answer(connection);
  }
}

int main(void) {
  mark_write(mark_now(), kMarkMain);
  int stop = -1;
  if (asked("BENCH_SERVE")) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR2);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    stop = signalfd(-1, &signals, SFD_CLOEXEC);
  }
  if (asked("BENCH_START_MS") > 0) start_slowly(asked("BENCH_START_MS"));
  if (asked("BENCH_ACK") && send_ack() != 0) {
    perror("worker: no ACK");
    return 1;
  }
  if (asked("BENCH_SERVE")) return serve(asked("EINHORN_FD_0"), stop);
  for (;;) pause();
}
