#define _GNU_SOURCE
#include "einhorn/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static _Thread_local char last_error[512];

const char* einhorn_error(void) { return last_error; }

__attribute__((format(printf, 1, 2))) static int fail(const char* format, ...) {
  int saved = errno;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  errno = saved;
  return -1;
}

/* --- who am I ----------------------------------------------------------------------------------
 */

/* A number of the environment, at least 0; -1 if it is not there or is none. */
static int number_of(const char* variable) {
  const char* text = getenv(variable);
  if (text == NULL || *text < '0' || *text > '9') {
    return -1;
  }
  char* end = NULL;
  long number = strtol(text, &end, 10);
  return *end == '\0' && number <= INT_MAX ? (int)number : -1;
}

int einhorn_is_worker(void) { return number_of("EINHORN_MASTER_PID") == (int)getppid(); }

int einhorn_require_worker(void) {
  if (einhorn_is_worker()) {
    return 0;
  }
  const char* master = getenv("EINHORN_MASTER_PID");
  if (master == NULL) {
    return fail("not a worker of Einhorn: EINHORN_MASTER_PID is not set");
  }
  return fail("not a worker of Einhorn: EINHORN_MASTER_PID is %s, but the parent is %d", master,
              (int)getppid());
}

int einhorn_index(void) { return number_of("EINHORN_CHILD_INDEX"); }

/* --- sockets -----------------------------------------------------------------------------------
 */

/* systemd's variables count only for the process they were made for. */
static int listen_fds(void) {
  int count = number_of("LISTEN_PID") == (int)getpid() ? number_of("LISTEN_FDS") : 0;
  return count > 0 ? count : 0;
}

int einhorn_socket_count(void) {
  int count = number_of("EINHORN_FD_COUNT");
  return count >= 0 ? count : listen_fds();
}

static int usable(int fd, const char* variable) {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
    return fail("%s: descriptor %d is no open socket: %s", variable, fd, strerror(errno));
  }
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return fail("%s: descriptor %d: %s", variable, fd, strerror(errno));
  }
  return fd;
}

int einhorn_socket(int number) {
  int count = einhorn_socket_count();
  if (number < 0 || number >= count) {
    return fail("there is no socket %d: %d were handed in (einhorn -b)", number, count);
  }
  if (number_of("EINHORN_FD_COUNT") < 0) {
    return usable(3 + number, "LISTEN_FDS");
  }
  char variable[32];
  snprintf(variable, sizeof variable, "EINHORN_FD_%d", number);
  int fd = number_of(variable);
  return fd >= 0 ? usable(fd, variable) : fail("%s is not set, or is no number", variable);
}

int einhorn_socket_number(const char* name) {
  const char* names = getenv("LISTEN_FDNAMES");
  int count = einhorn_socket_count();
  size_t length = strlen(name);
  for (int number = 0; names != NULL && number < count; ++number) {
    size_t here = strcspn(names, ":");
    if (here == length && strncmp(names, name, length) == 0) {
      return number;
    }
    names = names[here] == ':' ? names + here + 1 : NULL;
  }
  names = getenv("LISTEN_FDNAMES");
  return fail("there is no socket named \"%s\"; there are: %s", name,
              count > 0 && names != NULL ? names : "none");
}

int einhorn_socket_named(const char* name) {
  int number = einhorn_socket_number(name);
  return number < 0 ? -1 : einhorn_socket(number);
}

/* --- telling Einhorn ---------------------------------------------------------------------------
 */

/* The address of a unix socket; an `@` in front means an abstract one. */
static int unix_address(const char* path, struct sockaddr_un* address, socklen_t* size) {
  size_t length = strlen(path);
  if (length == 0 || length >= sizeof address->sun_path) {
    return fail("no path of a socket: \"%s\"", path);
  }
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path, path, length);
  if (path[0] == '@') {
    address->sun_path[0] = '\0';
  }
  *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  return 0;
}

static int send_all(int fd, const char* line, size_t length, const char* where) {
  while (length > 0) {
    ssize_t sent = send(fd, line, length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) {
      continue;
    }
    if (sent < 0) {
      return fail("could not send to %s: %s", where, strerror(errno));
    }
    line += sent;
    length -= (size_t)sent;
  }
  return 1;
}

static int send_by_path(const char* line, size_t length) {
  const char* path = getenv("EINHORN_SOCK_PATH");
  struct sockaddr_un address;
  socklen_t size = 0;
  if (path == NULL) {
    return fail("EINHORN_SOCK_PATH is not set");
  }
  if (unix_address(path, &address, &size) != 0) {
    return -1;
  }
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return fail("socket: %s", strerror(errno));
  }
  int result = connect(fd, (struct sockaddr*)&address, size) == 0
                   ? send_all(fd, line, length, path)
                   : fail("could not connect to %s: %s", path, strerror(errno));
  close(fd);
  return result;
}

static int send_by_descriptor(const char* line, size_t length) {
  int fd = number_of("EINHORN_SOCK_FD");
  if (fd < 0) {
    return fail("EINHORN_SOCK_FD is not set (einhorn -g sets it)");
  }
  return send_all(fd, line, length, "EINHORN_SOCK_FD");
}

static int send_command(enum einhorn_via via, const char* line) {
  size_t length = strlen(line);
  switch (via) {
    case EINHORN_FD:
      return send_by_descriptor(line, length);
    case EINHORN_PATH:
      return send_by_path(line, length);
    case EINHORN_NOTIFY:
    case EINHORN_AUTO:
      break;
  }
  int result = send_by_path(line, length);
  if (result < 0 && number_of("EINHORN_SOCK_FD") >= 0) {
    result = send_by_descriptor(line, length);
  }
  return result;
}

int einhorn_ack(enum einhorn_via via) {
  if (!einhorn_is_worker()) {
    return 0;
  }
  if (via == EINHORN_NOTIFY) {
    return einhorn_notify("READY=1");
  }
  char line[64];
  snprintf(line, sizeof line, "{\"command\":\"worker:ack\",\"pid\":%d}\n", (int)getpid());
  return send_command(via, line);
}

/* Appends text as a JSON string, cut off where the room ends. A `%` would be taken for an escape of
 * the line, so it becomes one of JSON. */
static size_t append_json(char* out, size_t used, size_t room, const char* text) {
  out[used++] = '"';
  for (const unsigned char* c = (const unsigned char*)text; *c != '\0'; ++c) {
    if (used + 8 > room) {
      /* Never in the middle of a character. */
      while ((out[used - 1] & 0xC0) == 0x80) {
        --used;
      }
      if ((out[used - 1] & 0xC0) == 0xC0) {
        --used;
      }
      break;
    }
    if (*c < 0x20 || *c == '"' || *c == '\\' || *c == '%') {
      used += (size_t)snprintf(out + used, room - used, "\\u%04x", *c);
    } else {
      out[used++] = (char)*c;
    }
  }
  out[used++] = '"';
  return used;
}

int einhorn_ping(const char* request_id, enum einhorn_load load, const char* status) {
  if (!einhorn_is_worker()) {
    return 0;
  }
  char line[4096];
  size_t used = (size_t)snprintf(line, sizeof line, "{\"command\":\"worker:ping\",\"pid\":%d%s",
                                 (int)getpid(),
                                 load == EINHORN_BUSY   ? ",\"busy\":true"
                                 : load == EINHORN_IDLE ? ",\"busy\":false"
                                                        : "");
  if (request_id != NULL) {
    used += (size_t)snprintf(line + used, sizeof line - used, ",\"request_id\":");
    used = append_json(line, used, 2048, request_id);
  }
  if (status != NULL) {
    used += (size_t)snprintf(line + used, sizeof line - used, ",\"status\":");
    used = append_json(line, used, sizeof line - 8, status);
  }
  snprintf(line + used, sizeof line - used, "}\n");
  return send_command(EINHORN_AUTO, line);
}

int einhorn_notify(const char* assignments) {
  const char* path = getenv("NOTIFY_SOCKET");
  if (path == NULL || *path == '\0') {
    return 0;
  }
  struct sockaddr_un address;
  socklen_t size = 0;
  if (unix_address(path, &address, &size) != 0) {
    return -1;
  }
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return fail("socket: %s", strerror(errno));
  }
  ssize_t sent =
      sendto(fd, assignments, strlen(assignments), MSG_NOSIGNAL, (struct sockaddr*)&address, size);
  int result = sent < 0 ? fail("could not send to %s: %s", path, strerror(errno)) : 1;
  close(fd);
  return result;
}

int einhorn_status(const char* text) {
  char message[1024];
  snprintf(message, sizeof message, "STATUS=%s", text);
  for (char* c = message; *c != '\0'; ++c) {
    if (*c == '\n') {
      *c = ' ';
    }
  }
  return einhorn_notify(message);
}

/* --- leaving -----------------------------------------------------------------------------------
 */

/* A signal may come between a look at a flag and poll(); a byte in a pipe can't be missed. */
static int stop_pipe[2] = {-1, -1};
/* Whose pipe that is: a forked child's signals wake the child alone. */
static volatile pid_t stop_owner;
static volatile sig_atomic_t stopping;

static void on_signal(int number) {
  (void)number;
  int saved = errno;
  stopping = 1;
  if (stop_owner == getpid() && write(stop_pipe[1], "x", 1) < 0) {
    /* Full: then it is readable, and that is all it is for. */
  }
  errno = saved;
}

/* This process's pipe; in a forked child another one under the same numbers. */
static int own_stop_pipe(void) {
  if (stop_owner == getpid()) {
    return 0;
  }
  int fresh[2];
  if (pipe2(fresh, O_CLOEXEC | O_NONBLOCK) != 0) {
    return -1;
  }
  if (stop_pipe[0] < 0) {
    memcpy(stop_pipe, fresh, sizeof fresh);
  } else {
    for (int i = 0; i < 2; ++i) {
      dup3(fresh[i], stop_pipe[i], O_CLOEXEC);
      close(fresh[i]);
    }
  }
  stop_owner = getpid();
  return 0;
}

int einhorn_on_stop(int number) {
  if (own_stop_pipe() != 0) {
    return fail("pipe2: %s", strerror(errno));
  }
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  /* A read that waits for the rest of a request goes on; poll() returns all the same. */
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(number == 0 ? SIGUSR2 : number, &action, NULL) != 0) {
    return fail("sigaction: %s", strerror(errno));
  }
  return stop_pipe[0];
}

int einhorn_stopping(void) { return stopping; }

int einhorn_accept(int listener) {
  int flags = fcntl(listener, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) {
    fcntl(listener, F_SETFL, flags | O_NONBLOCK);
  }
  if (stop_pipe[0] >= 0 && own_stop_pipe() != 0) {
    return fail("pipe2: %s", strerror(errno));
  }
  while (!stopping) {
    struct pollfd ready[2] = {{listener, POLLIN, 0}, {stop_pipe[0], POLLIN, 0}};
    if (poll(ready, 2, -1) < 0 && errno != EINTR) {
      return fail("poll: %s", strerror(errno));
    }
    if (stopping) {
      break;
    }
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection >= 0) {
      return connection;
    }
    /* Somebody else got it, or it is gone already. */
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      return fail("accept: %s", strerror(errno));
    }
  }
  errno = ECANCELED;
  return fail("a stop was asked for");
}
