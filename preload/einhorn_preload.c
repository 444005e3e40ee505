// Einhorn's zygote for C and C++: loads a shared library once and forks workers from it; see
// docs/preload.md.
//
//   einhorn-preload LIBRARY SCRIPT [ARGUMENT...]
//
// Written in C, so that the library brings the only C++ runtime there is in its workers.
#define _GNU_SOURCE  // NOLINT: the name that the C library asks for
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kMessageBytes = 65536, kTextBytes = 4096, kMostRequests = 32, kUnknown = -1 };

typedef int (*Main)(int, char **);

// What we were asked for and have not done yet.
static struct {
  unsigned long long number;
  char message[kMessageBytes];
} requests[kMostRequests];

static int master = -1;
static pid_t me = 0;
static int loaded = 0;

static int say(const char *format, ...) {
  char text[kTextBytes];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (length >= (int)sizeof(text)) {
    length = (int)sizeof(text) - 1;
  }
  return send(master, text, (size_t)length, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static void refuse(const char *what, const char *why) {
  say("ERRNO=22\nSTATUS=%s%s", what, why);
  _exit(1);
}

// The code's own exit() comes here.
static void at_exit(void) {
  if (!loaded && getpid() == me) {
    refuse("the code called exit while it was loaded", "");
  }
}

static void describe_listeners(char *text, size_t size) {
  const char *count = getenv("EINHORN_FD_COUNT");
  size_t used = 0;
  text[0] = '\0';
  const long sockets = count != NULL ? strtol(count, NULL, 10) : 0;
  for (int i = 0; i < sockets && used + 64 < size; ++i) {
    char name[64];
    char path[64];
    snprintf(name, sizeof(name), "EINHORN_FD_%d", i);
    const char *number = getenv(name);
    snprintf(path, sizeof(path), "/proc/self/fd/%s", number != NULL ? number : "");
    const ssize_t length = readlink(path, text + used, 60);
    used += length > 0 ? (size_t)length : 0;
    text[used++] = ' ';
    text[used] = '\0';
  }
}

static int count_threads(void) {
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  for (struct dirent *entry = NULL; tasks != NULL && (entry = readdir(tasks)) != NULL;) {
    count += entry->d_name[0] != '.';
  }
  if (tasks != NULL) {
    closedir(tasks);
  }
  return count;
}

// The lines of a request: `NAME=VALUE`, of which these are not for the environment.
struct Order {
  unsigned long long number;
  int death_signal;
  const char *connect_to;
};

static struct Order read_order(char *message, int set_environment) {
  struct Order order = {0, 0, NULL};
  char *rest = NULL;
  for (char *line = strtok_r(message, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    char *value = strchr(line, '=');
    if (value == NULL) {
      continue;
    }
    *value++ = '\0';
    if (strcmp(line, "FORK") == 0) {
      order.number = strtoull(value, NULL, 10);
    } else if (strcmp(line, "DEATH_SIGNAL") == 0) {
      order.death_signal = (int)strtol(value, NULL, 10);
    } else if (strcmp(line, "CONNECT") == 0) {
      order.connect_to = value;
    } else if (set_environment) {
      setenv(line, value, 1);
    }
  }
  return order;
}

static void connect_command_socket(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const int command = socket(AF_UNIX, SOCK_STREAM, 0);
  strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  if (command < 0 || connect(command, (struct sockaddr *)&address, sizeof(address)) != 0) {
    fprintf(stderr, "einhorn: connect %s: %s\n", path, strerror(errno));
    _exit(1);
  }
  char number[16];
  snprintf(number, sizeof(number), "%d", command);
  setenv("EINHORN_SOCK_FD", number, 1);
}

// In a new worker: from here on it is one.
static void be_worker(pid_t parent, char *message) {
  const struct timespec moment = {0, 100000};
  while (getppid() == parent) {
    nanosleep(&moment, NULL);
  }
  setpgid(0, 0);
  char number[16];
  snprintf(number, sizeof(number), "%d", getppid());
  setenv("EINHORN_MASTER_PID", number, 1);
  if (getenv("LISTEN_FDS") != NULL) {
    snprintf(number, sizeof(number), "%d", getpid());
    setenv("LISTEN_PID", number, 1);
  }
  const struct Order order = read_order(message, 1);
  if (order.death_signal != 0) {
    const pid_t guard = getppid();
    prctl(PR_SET_PDEATHSIG, order.death_signal, 0, 0, 0);
    if (getppid() != guard) {
      _exit(1);
    }
  }
  if (say("FORKED=%llu", order.number) != 0) {
    _exit(1);  // nobody knows of this process
  }
  close(master);
  if (order.connect_to != NULL) {
    connect_command_socket(order.connect_to);
  }
}

// True in a new worker. It is a child of neither this process nor the one in between, so Einhorn
// becomes its parent. One process in between does for all that are asked for together: each fork
// copies what the kernel knows of our pages. `outcomes` is shared with it: what became of each, 0 or
// an errno.
static int fork_twice(volatile int *outcomes, int count) {
  fflush(NULL);
  for (int i = 0; i < count; ++i) {
    outcomes[i] = kUnknown;
  }
  const pid_t between = fork();
  if (between == 0) {
    const pid_t parent = getpid();
    for (int i = 0; i < count; ++i) {
      const pid_t worker = fork();
      if (worker == 0) {
        be_worker(parent, requests[i].message);
        return 1;
      }
      outcomes[i] = worker < 0 ? errno : 0;
    }
    _exit(0);
  }
  const int refused = errno;
  while (between > 0 && waitpid(between, NULL, 0) < 0 && errno == EINTR) {
  }
  for (int i = 0; i < count; ++i) {
    const int error = between < 0 ? refused : outcomes[i] == kUnknown ? EINTR : outcomes[i];
    if (error != 0) {
      say("FAILED=%llu\nERRNO=%d\nSTATUS=fork: %s", requests[i].number, error, strerror(error));
    }
  }
  return 0;
}

// Forks what it is asked for; returns in workers only.
static void serve(volatile int *outcomes) {
  static char copy[kMessageBytes];
  unsigned long long last = 0;
  for (;;) {
    int count = 0;
    while (count < kMostRequests) {
      char *message = requests[count].message;
      const ssize_t length = recv(master, message, kMessageBytes - 1, count > 0 ? MSG_DONTWAIT : 0);
      if (length < 0 && errno == EINTR) {
        continue;
      }
      if (length <= 0 && count > 0) {
        break;  // no more for now; the end is there to be read again
      }
      if (length <= 0) {
        _exit(0);
      }
      message[length] = '\0';
      memcpy(copy, message, (size_t)length + 1);
      requests[count].number = read_order(copy, 0).number;
      if (requests[count].number > last) {  // else it is said again by a new master
        last = requests[count++].number;
      }
    }
    if (fork_twice(outcomes, count)) {
      return;
    }
  }
}

int main(int argc, char **argv) {
  const char *number = getenv("EINHORN_ZYGOTE_FD");
  if (argc < 2 || number == NULL) {
    fprintf(stderr, "einhorn-preload: started by einhorn -p LIBRARY\n");
    return 1;
  }
  master = (int)strtol(number, NULL, 10);
  fcntl(master, F_SETFD, FD_CLOEXEC);
  fcntl(master, F_SETFL, 0);  // it waits
  unsetenv("EINHORN_ZYGOTE_FD");
  unsetenv("EINHORN_GC_BEFORE_FORK");
  me = getpid();
  char before[kTextBytes];
  char after[kTextBytes];
  describe_listeners(before, sizeof(before));
  atexit(at_exit);
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
  if (getpid() != me) {
    fprintf(stderr, "einhorn: %s has forked while it was loaded; this child of it ends\n", argv[1]);
    _exit(1);
  }
  if (library == NULL) {
    refuse("", dlerror());
  }
  // As POSIX wants it: a data pointer becomes one to a function.
  union {
    void *symbol;
    Main function;
  } found = {.symbol = dlsym(library, "einhorn_main")};
  if (found.symbol == NULL) {
    refuse("there is no einhorn_main (extern \"C\") in ", argv[1]);
  }
  describe_listeners(after, sizeof(after));
  if (strcmp(before, after) != 0) {
    refuse("the code closed a socket of -b while it was loaded", "");
  }
  if (count_threads() > 1) {
    refuse("the code started threads while it was loaded: they would not exist in workers; start ",
           "them in einhorn_main");
  }
  volatile int *outcomes = mmap(NULL, kMostRequests * sizeof(*outcomes), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (outcomes == MAP_FAILED) {
    refuse("mmap: ", strerror(errno));
  }
  malloc_trim(0);
  loaded = 1;
  if (say("READY=1") != 0) {
    fprintf(stderr, "einhorn: the line to Einhorn is lost: %s\n", strerror(errno));
    _exit(76);
  }
  serve(outcomes);
  return argc > 2 ? found.function(argc - 2, argv + 2) : found.function(argc - 1, argv + 1);
}
