/* load [-c LANES] [-r RATE] PORT
 *
 * Asks 127.0.0.1:PORT over and over, each request on a new connection, at most LANES at a time (8)
 * and RATE a second (2000), until its standard input ends. Then it waits for the answers still due
 * and prints one JSON object:
 *
 *   requests        answered in full with status 200
 *   failed          all others, and of these: refused, reset, cut (an incomplete answer), late (no
 * answer in 5 s), wrong (not status 200) longest_gap_ms  the longest time in which no request at
 * all was answered slowest_ms      the slowest answered request seconds         how long it asked
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "mark.h"

enum {
  kMaxLanes = 256,
  kEventsATurn = 64,
  kAnswerRoom = 1024,
  kTickNanoseconds = 1000000,
  kTokenInput = kMaxLanes,
  kTokenTick,
};
static const uint64_t kLate = 5000000000u;
static const char kRequest[] = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

struct lane {
  int fd; /* -1: no request under way */
  bool asked;
  uint64_t began;
  size_t length;
  char answer[kAnswerRoom];
};

struct load {
  int epoll;
  struct sockaddr_in address;
  struct lane lanes[kMaxLanes];
  int lane_count;
  bool stopping;
  double rate;
  double due; /* Requests that RATE allows and that are not started yet. */
  uint64_t began;
  uint64_t last_tick;
  uint64_t last_answer;
  uint64_t longest_gap;
  uint64_t slowest;
  uint64_t answered, refused, reset, cut, late, wrong;
};

static void fail(const char* what) {
  perror(what);
  exit(1);
}

static void note_gap(struct load* load, uint64_t now) {
  if (now - load->last_answer > load->longest_gap) load->longest_gap = now - load->last_answer;
}

/* ---- one request -------------------------------------------------------------------------------
 */

static void finish(struct lane* lane, uint64_t* counter) {
  close(lane->fd); /* Leaves the epoll set with it. */
  lane->fd = -1;
  ++*counter;
}

static void finish_with_errno(struct load* load, struct lane* lane, int code) {
  if (code == EADDRNOTAVAIL || code == EMFILE) {
    errno = code;
    fail("load: out of local ports or descriptors");
  }
  finish(lane, code == ECONNREFUSED ? &load->refused : &load->reset);
}

static void begin(struct load* load, int number) {
  struct lane* lane = &load->lanes[number];
  lane->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (lane->fd < 0) fail("socket");
  lane->asked = false;
  lane->length = 0;
  lane->began = mark_now();
  if (connect(lane->fd, (struct sockaddr*)&load->address, sizeof load->address) != 0 &&
      errno != EINPROGRESS) {
    finish_with_errno(load, lane, errno);
    return;
  }
  struct epoll_event event = {.events = EPOLLOUT, .data.u32 = (uint32_t)number};
  if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, lane->fd, &event) != 0) fail("epoll_ctl");
}

static void on_connected(struct load* load, int number) {
  struct lane* lane = &load->lanes[number];
  int code = 0;
  socklen_t size = sizeof code;
  getsockopt(lane->fd, SOL_SOCKET, SO_ERROR, &code, &size);
  if (code == 0 && send(lane->fd, kRequest, sizeof kRequest - 1, MSG_NOSIGNAL) < 0) code = errno;
  if (code != 0) {
    finish_with_errno(load, lane, code);
    return;
  }
  lane->asked = true;
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)number};
  if (epoll_ctl(load->epoll, EPOLL_CTL_MOD, lane->fd, &event) != 0) fail("epoll_ctl");
}

/* Whole: the head has ended, and as many bytes follow as it promised. */
static bool is_whole(struct lane* lane) {
  lane->answer[lane->length] = '\0';
  const char* body = strstr(lane->answer, "\r\n\r\n");
  const char* promised = strstr(lane->answer, "Content-Length: ");
  if (body == NULL || promised == NULL || promised > body) return false;
  size_t head = (size_t)(body + 4 - lane->answer);
  return lane->length - head >= strtoul(promised + strlen("Content-Length: "), NULL, 10);
}

static void on_end_of_answer(struct load* load, struct lane* lane) {
  static const char kGood[] = "HTTP/1.1 200 ";
  if (!is_whole(lane)) {
    finish(lane, &load->cut);
  } else if (strncmp(lane->answer, kGood, sizeof kGood - 1) != 0) {
    finish(lane, &load->wrong);
  } else {
    uint64_t now = mark_now();
    if (now - lane->began > load->slowest) load->slowest = now - lane->began;
    note_gap(load, now);
    load->last_answer = now;
    finish(lane, &load->answered);
  }
}

static void on_lane(struct load* load, int number) {
  struct lane* lane = &load->lanes[number];
  if (lane->fd < 0) return;
  if (!lane->asked) {
    on_connected(load, number);
    return;
  }
  size_t room = kAnswerRoom - 1 - lane->length;
  ssize_t got = recv(lane->fd, lane->answer + lane->length, room, 0);
  if (got > 0) {
    lane->length += (size_t)got;
  } else if (got == 0) {
    on_end_of_answer(load, lane);
  } else if (errno != EAGAIN) {
    finish_with_errno(load, lane, errno);
  }
}

/* ---- the loop ----------------------------------------------------------------------------------
 */

static void on_tick(struct load* load, int timer) {
  uint64_t expirations;
  if (read(timer, &expirations, sizeof expirations) < 0) return;
  uint64_t now = mark_now();
  load->due += load->rate * (double)(now - load->last_tick) / 1e9;
  load->last_tick = now;
  if (load->due > load->lane_count) load->due = load->lane_count;
  for (int number = 0; number < load->lane_count; ++number) {
    struct lane* lane = &load->lanes[number];
    if (lane->fd >= 0 && now - lane->began > kLate) finish(lane, &load->late);
    if (lane->fd < 0 && load->due >= 1 && !load->stopping) {
      load->due -= 1;
      begin(load, number);
    }
  }
}

static bool is_busy(const struct load* load) {
  for (int number = 0; number < load->lane_count; ++number) {
    if (load->lanes[number].fd >= 0) return true;
  }
  return false;
}

static void report(struct load* load) {
  uint64_t now = mark_now();
  note_gap(load, now);
  uint64_t failed = load->refused + load->reset + load->cut + load->late + load->wrong;
  printf("{\"requests\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"refused\": %" PRIu64
         ", \"reset\": %" PRIu64 ", \"cut\": %" PRIu64 ", \"late\": %" PRIu64
         ", \"wrong\": %" PRIu64
         ", \"longest_gap_ms\": %.3f, \"slowest_ms\": %.3f"
         ", \"seconds\": %.3f}\n",
         load->answered, failed, load->refused, load->reset, load->cut, load->late, load->wrong,
         (double)load->longest_gap / 1e6, (double)load->slowest / 1e6,
         (double)(now - load->began) / 1e9);
}

static void watch(int epoll, int fd, uint32_t token) {
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = token};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
}

static void run(struct load* load) {
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct itimerspec tick = {.it_interval.tv_nsec = kTickNanoseconds,
                            .it_value.tv_nsec = kTickNanoseconds};
  if (timer < 0 || timerfd_settime(timer, 0, &tick, NULL) != 0) fail("timerfd");
  watch(load->epoll, timer, kTokenTick);
  watch(load->epoll, STDIN_FILENO, kTokenInput);
  struct epoll_event events[kEventsATurn];
  while (!load->stopping || is_busy(load)) {
    int ready = epoll_wait(load->epoll, events, kEventsATurn, -1);
    for (int at = 0; at < ready; ++at) {
      uint32_t token = events[at].data.u32;
      if (token == kTokenInput) {
        load->stopping = true;
        epoll_ctl(load->epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
      } else if (token == kTokenTick) {
        on_tick(load, timer);
      } else {
        on_lane(load, (int)token);
      }
    }
  }
}

int main(int argc, char** argv) {
  static struct load load;
  load.lane_count = 8;
  load.rate = 2000;
  for (int option; (option = getopt(argc, argv, "+c:r:")) != -1;) {
    if (option == 'c') load.lane_count = atoi(optarg);
    if (option == 'r') load.rate = atof(optarg);
    if (option == '?') return 1;
  }
  if (optind + 1 != argc || load.lane_count < 1 || load.lane_count > kMaxLanes || load.rate <= 0) {
    fprintf(stderr, "usage: load [-c LANES] [-r RATE] PORT\n");
    return 1;
  }
  load.address.sin_family = AF_INET;
  load.address.sin_port = htons((uint16_t)atoi(argv[optind]));
  load.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int number = 0; number < kMaxLanes; ++number) load.lanes[number].fd = -1;
  load.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (load.epoll < 0) fail("epoll_create1");
  load.began = load.last_tick = load.last_answer = mark_now();
  run(&load);
  report(&load);
  return 0;
}
