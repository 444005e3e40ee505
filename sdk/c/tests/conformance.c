/* The conformance program in C; what it does is written down in tests/integration/sdk/scenario.py.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <einhorn/worker.h>

static const char* text_of(const char* variable, const char* otherwise) {
  const char* text = getenv(variable);
  return text != NULL ? text : otherwise;
}

static int is_number(const char* text) { return *text >= '0' && *text <= '9'; }

static int wanted_socket(void) {
  const char* which = text_of("SDK_SOCKET", "0");
  return is_number(which) ? einhorn_socket(atoi(which)) : einhorn_socket_named(which);
}

static enum einhorn_via wanted_way(void) {
  const char* via = text_of("SDK_ACK", "auto");
  return strcmp(via, "path") == 0     ? EINHORN_PATH
         : strcmp(via, "fd") == 0     ? EINHORN_FD
         : strcmp(via, "notify") == 0 ? EINHORN_NOTIFY
                                      : EINHORN_AUTO;
}

static const char* boolean(int result) { return result > 0 ? "true" : "false"; }

/* The messages hold quotes only around a name. */
static void print_text(const char* key, int failed) {
  printf(",\"%s\":", key);
  if (!failed) {
    printf("null");
    return;
  }
  putchar('"');
  for (const char* c = einhorn_error(); *c != '\0'; ++c) {
    printf(*c == '"' ? "\\\"" : "%c", *c);
  }
  putchar('"');
}

static int tell(void) {
  printf("{\"worker\":%s", boolean(einhorn_is_worker()));
  print_text("why", einhorn_require_worker() != 0);
  printf(",\"index\":%d,\"count\":%d", einhorn_index(), einhorn_socket_count());
  int fd = wanted_socket();
  printf(",\"fd\":%d", fd);
  print_text("error", fd < 0);
  printf(",\"ack\":%s", boolean(einhorn_ack(EINHORN_AUTO)));
  printf(",\"ping\":%s", boolean(einhorn_ping("x", EINHORN_IDLE, NULL)));
  printf(",\"status\":%s}\n", boolean(einhorn_status("x")));
  return 0;
}

static void wait_for_file(const char* file) {
  char begun[4096];
  snprintf(begun, sizeof begun, "%s.begun", file);
  fclose(fopen(begun, "w"));
  while (access(file, F_OK) != 0) {
    usleep(5000);
  }
}

static int child_is_told(void) {
  pid_t child = fork();
  if (child == 0) {
    raise(SIGUSR2);
    _exit(einhorn_stopping() ? 0 : 1);
  }
  int status = -1;
  return waitpid(child, &status, 0) == child && status == 0;
}

static int act(char* path) {
  if (strcmp(path, "/ack") == 0) {
    return einhorn_ack(wanted_way());
  }
  if (strcmp(path, "/ping") == 0) {
    return einhorn_ping("100%25 \"sure\"\n\xc3\xbc", EINHORN_BUSY, "serving");
  }
  if (strcmp(path, "/status") == 0) {
    return einhorn_status("warming up");
  }
  if (strcmp(path, "/fork") == 0) {
    return child_is_told();
  }
  if (strncmp(path, "/slow?", 6) == 0) {
    wait_for_file(path + 6);
  }
  return 0;
}

static atomic_int serving;

static void* serve(void* argument) {
  int client = (int)(intptr_t)argument;
  char request[8192];
  size_t used = 0;
  ssize_t got = 0;
  while ((got = read(client, request + used, sizeof request - 1 - used)) > 0) {
    used += (size_t)got;
    request[used] = '\0';
    if (strstr(request, "\r\n\r\n") != NULL) {
      break;
    }
  }
  char path[4096];
  if (used > 0 && sscanf(request, "GET %4095s", path) == 1) {
    int sent = act(path);
    char body[256];
    int length = snprintf(body, sizeof body, "{\"pid\":%d,\"index\":%d,\"worker\":%s,\"sent\":%s}",
                          (int)getpid(), einhorn_index(), boolean(einhorn_is_worker()),
                          sent < 0 ? "\"error\"" : boolean(sent));
    dprintf(client, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", length,
            body);
  }
  close(client);
  --serving;
  return NULL;
}

static int own_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t size = sizeof address;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  bind(fd, (struct sockaddr*)&address, size);
  listen(fd, 100);
  getsockname(fd, (struct sockaddr*)&address, &size);
  printf("listening on %d\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "tell") == 0) {
    return tell();
  }
  signal(SIGPIPE, SIG_IGN);
  einhorn_on_stop(0);
  int listener = einhorn_socket_count() > 0 ? wanted_socket() : own_port();
  if (listener < 0 ||
      (strcmp(text_of("SDK_ACK_AT", "start"), "start") == 0 && einhorn_ack(wanted_way()) < 0)) {
    fprintf(stderr, "%s\n", einhorn_error());
    return 1;
  }
  for (int client = 0; (client = einhorn_accept(listener)) >= 0;) {
    pthread_t thread;
    ++serving;
    if (pthread_create(&thread, NULL, serve, (void*)(intptr_t)client) != 0) {
      return 1;
    }
    pthread_detach(thread);
  }
  while (serving > 0) {
    usleep(2000);
  }
  return 0;
}
