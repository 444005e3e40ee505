/* bare -n N [-d SOCKET] PROGRAM [ARGS]
 *
 * The floor of the benchmarks: the least a supervisor on this kernel can do. It keeps N copies of
 * PROGRAM running with clone3 and exec, learns of a death from a pidfd in an epoll set, and starts
 * the next copy at once. It has no listeners, no ACKs, no log, no back-off and keeps no record of
 * what it did. With -d it also answers each line on a unix stream socket with one line that names
 * every copy: the least a `state` command can do.
 *
 * SIGHUP: starts a new copy in each slot and kills the old ones, the least an upgrade can do.
 * SIGTERM: kills its copies and leaves. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mark.h"

enum { kStackSize = 64 * 1024, kEventsATurn = 64, kMaxClients = 16, kLineRoom = 64 };

/* What an epoll event is about: a slot's number, or one of these beyond every slot. */
enum { kTokenSignal = 1u << 30, kTokenListener, kTokenClient };

struct copy {
  pid_t pid;
  int pidfd;
  uint64_t started;
};

struct loop {
  int epoll;
  int listener;
  int signals;
  char** command;
  struct copy* copies;
  uint32_t count;
  char* stack;
  char* reply;
};

static void fail(const char* what) {
  perror(what);
  exit(1);
}

/* ---- starting a copy ---------------------------------------------------------------------------
 */

static int become_program(void* argument) {
  char** command = argument;
  sigset_t none;
  sigemptyset(&none);
  setpgid(0, 0);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execv(command[0], command);
  return 127;
}

/* The child runs on `stack` while this thread waits for its exec; their memory is one. */
#if defined(__x86_64__)
static pid_t spawn(char* stack, char** command, int* pidfd) {
  struct clone_args arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
  arguments.pidfd = (uint64_t)(uintptr_t)pidfd;
  arguments.exit_signal = SIGCHLD;
  arguments.stack = (uint64_t)(uintptr_t)stack;
  arguments.stack_size = kStackSize;
  long result = SYS_clone3;
  register int (*entry)(void*) __asm__("r8") = become_program;
  register void* argument __asm__("r9") = command;
  __asm__ volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "movq %%r9, %%rdi\n\t"
      "callq *%%r8\n\t"
      "movl %%eax, %%edi\n\t"
      "movl %[leave], %%eax\n\t"
      "syscall\n"
      "1:"
      : "+a"(result)
      : "D"(&arguments), "S"(sizeof arguments), "r"(entry), "r"(argument), [leave] "i"(SYS_exit)
      : "rcx", "r11", "memory", "cc");
  if (result < 0) errno = (int)-result;
  return result < 0 ? -1 : (pid_t)result;
}
#else
static pid_t spawn(char* stack, char** command, int* pidfd) {
  return clone(become_program, stack + kStackSize, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
               command, pidfd);
}
#endif

static void watch(int epoll, int fd, uint64_t token) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = token};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
}

static void start_copy(struct loop* loop, uint32_t slot) {
  struct copy* copy = &loop->copies[slot];
  copy->started = mark_now();
  copy->pid = spawn(loop->stack, loop->command, &copy->pidfd);
  if (copy->pid < 0) fail("clone3");
  watch(loop->epoll, copy->pidfd, slot);
}

/* Reaps a copy and forgets it. False if it is still alive, which can only be without `wait`. */
static int bury(struct loop* loop, int pidfd, int wait) {
  siginfo_t info = {.si_pid = 0};
  if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | (wait ? 0 : WNOHANG)) != 0) fail("waitid");
  if (info.si_pid == 0) return 0;
  epoll_ctl(loop->epoll, EPOLL_CTL_DEL, pidfd, NULL);
  close(pidfd);
  return 1;
}

static void on_death(struct loop* loop, uint32_t slot) {
  /* After an upgrade in the same turn the event may be about the copy that was here before. */
  if (bury(loop, loop->copies[slot].pidfd, 0)) start_copy(loop, slot);
}

/* ---- the state socket --------------------------------------------------------------------------
 */

static int listen_at(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    fprintf(stderr, "bare: the socket's path is too long\n");
    exit(1);
  }
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  if (bind(fd, (struct sockaddr*)&address, sizeof address) != 0) fail("bind");
  if (listen(fd, kMaxClients) != 0) fail("listen");
  return fd;
}

static void write_all(int fd, const char* bytes, size_t length) {
  while (length > 0) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes += sent;
    length -= (size_t)sent;
  }
}

static void answer_state(struct loop* loop, int client) {
  size_t used = 0;
  for (uint32_t slot = 0; slot < loop->count; ++slot) {
    used += (size_t)snprintf(loop->reply + used, kLineRoom, "%d: {index: %u, started: %llu}%%0A",
                             (int)loop->copies[slot].pid, slot,
                             (unsigned long long)loop->copies[slot].started);
  }
  loop->reply[used++] = '\n';
  write_all(client, loop->reply, used);
}

static void on_client(struct loop* loop, int client) {
  char bytes[4096];
  ssize_t length = recv(client, bytes, sizeof bytes, 0);
  if (length <= 0) {
    close(client);
    return;
  }
  for (ssize_t at = 0; at < length; ++at) {
    if (bytes[at] == '\n') answer_state(loop, client);
  }
}

/* ---- the loop ----------------------------------------------------------------------------------
 */

static void leave(struct loop* loop) {
  for (uint32_t slot = 0; slot < loop->count; ++slot) {
    syscall(SYS_pidfd_send_signal, loop->copies[slot].pidfd, SIGKILL, NULL, 0);
  }
  for (uint32_t slot = 0; slot < loop->count; ++slot) {
    siginfo_t info;
    waitid(P_PIDFD, (id_t)loop->copies[slot].pidfd, &info, WEXITED);
  }
  exit(0);
}

static void upgrade(struct loop* loop) {
  for (uint32_t slot = 0; slot < loop->count; ++slot) {
    int old = loop->copies[slot].pidfd;
    start_copy(loop, slot);
    syscall(SYS_pidfd_send_signal, old, SIGKILL, NULL, 0);
    bury(loop, old, 1);
  }
}

static void on_signal(struct loop* loop) {
  struct signalfd_siginfo signal;
  if (read(loop->signals, &signal, sizeof signal) != sizeof signal) fail("signalfd");
  if (signal.ssi_signo == SIGTERM) leave(loop);
  upgrade(loop);
}

static void on_event(struct loop* loop, uint64_t token) {
  if (token < loop->count) {
    on_death(loop, (uint32_t)token);
  } else if (token == kTokenSignal) {
    on_signal(loop);
  } else if (token == kTokenListener) {
    int client = accept4(loop->listener, NULL, NULL, SOCK_CLOEXEC);
    if (client >= 0) watch(loop->epoll, client, kTokenClient + (uint64_t)client);
  } else {
    on_client(loop, (int)(token - kTokenClient));
  }
}

static void run(struct loop* loop) {
  struct epoll_event events[kEventsATurn];
  for (;;) {
    int ready = epoll_wait(loop->epoll, events, kEventsATurn, -1);
    for (int at = 0; at < ready; ++at) on_event(loop, events[at].data.u64);
  }
}

static void allow_all_descriptors(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char** argv) {
  const char* socket_path = NULL;
  struct loop loop = {.count = 1};
  for (int option; (option = getopt(argc, argv, "+n:d:")) != -1;) {
    if (option == 'n') loop.count = (uint32_t)strtoul(optarg, NULL, 10);
    if (option == 'd') socket_path = optarg;
    if (option == '?') return 1;
  }
  if (optind >= argc || loop.count == 0) {
    fprintf(stderr, "usage: bare -n N [-d SOCKET] PROGRAM [ARGS]\n");
    return 1;
  }
  if (access(argv[optind], X_OK) != 0) fail(argv[optind]);
  allow_all_descriptors();
  loop.command = argv + optind;
  loop.epoll = epoll_create1(EPOLL_CLOEXEC);
  loop.copies = calloc(loop.count, sizeof *loop.copies);
  loop.stack = aligned_alloc(16, kStackSize);
  if (loop.epoll < 0 || loop.copies == NULL || loop.stack == NULL) fail("start");

  sigset_t all;
  sigset_t taken;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  sigemptyset(&taken);
  sigaddset(&taken, SIGTERM);
  sigaddset(&taken, SIGHUP);
  loop.signals = signalfd(-1, &taken, SFD_CLOEXEC);
  watch(loop.epoll, loop.signals, kTokenSignal);
  if (socket_path != NULL) {
    loop.reply = malloc((size_t)loop.count * kLineRoom + 1);
    if (loop.reply == NULL) fail("start");
    loop.listener = listen_at(socket_path);
    watch(loop.epoll, loop.listener, kTokenListener);
  }
  for (uint32_t slot = 0; slot < loop.count; ++slot) start_copy(&loop, slot);
  run(&loop);
}
