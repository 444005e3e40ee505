/* What a worker of Einhorn needs: the sockets it was given, saying that it is ready, and leaving
 * when it is asked to.
 *
 * Outside Einhorn everything answers cleanly: einhorn_is_worker() says 0, what would be told to
 * Einhorn is told to nobody (0 is returned, no error), and einhorn_socket() fails with a reason. A
 * program can so be started by hand without a branch at every call.
 *
 * Functions that can fail return -1; einhorn_error() then has the reason. Nothing here allocates
 * memory or writes to standard error. Calls may come from any thread; einhorn_on_stop() belongs at
 * the beginning of main(), before other threads start. */
#ifndef EINHORN_WORKER_H
#define EINHORN_WORKER_H

#ifdef __cplusplus
extern "C" {
#endif

#define EINHORN_WORKER_VERSION "0.1.0"

/* Why the last call of this thread returned -1: one line, English. */
const char* einhorn_error(void);

/* --- who am I ----------------------------------------------------------------------------------
 */

/* 1 if Einhorn runs this process: EINHORN_MASTER_PID names its parent. Otherwise 0. */
int einhorn_is_worker(void);

/* 0 if einhorn_is_worker(), otherwise -1, with the reason in einhorn_error(). */
int einhorn_require_worker(void);

/* This worker's index, unique among living workers of the pool; -1 outside Einhorn. */
int einhorn_index(void);

/* --- sockets -----------------------------------------------------------------------------------
 */

/* How many sockets were handed in (by Einhorn's -b, or by systemd). 0 if none. */
int einhorn_socket_count(void);

/* The descriptor of a socket by its number, counted from 0 in the order of -b, or by its name (-b
 * ADDR,name=NAME). -1 if there is none, or if the descriptor is no open socket. The descriptor is
 * made close-on-exec, so that programs which the worker starts do not keep the socket alive. */
int einhorn_socket(int number);
int einhorn_socket_named(const char* name);

/* The number of the socket with this name; -1 if there is none. */
int einhorn_socket_number(const char* name);

/* --- telling Einhorn ---------------------------------------------------------------------------
 */

enum einhorn_via {
  EINHORN_AUTO,   /* the command socket: by its path, or, if that can't be reached, by descriptor */
  EINHORN_PATH,   /* the command socket by EINHORN_SOCK_PATH */
  EINHORN_FD,     /* by EINHORN_SOCK_FD (einhorn -g): good for one message */
  EINHORN_NOTIFY, /* NOTIFY_SOCKET: einhorn -m notify */
};

enum einhorn_load { EINHORN_LOAD_UNKNOWN, EINHORN_IDLE, EINHORN_BUSY };

/* Says "I am ready". Under `einhorn -m manual` by one of the first three ways, under `-m notify` by
 * EINHORN_NOTIFY. Returns 1 if it was said, 0 if this is no worker, -1 if it could not be said. */
int einhorn_ack(enum einhorn_via via);

/* Says "I am alive", and what this worker is at: an id of the request (any text, or NULL), whether
 * it is busy, a line of status (or NULL). Returns as einhorn_ack(). */
int einhorn_ping(const char* request_id, enum einhorn_load load, const char* status);

/* A line about this worker, shown by `einhornsh -e status`. By NOTIFY_SOCKET, so it also works
 * under systemd. Returns 1, 0 if there is no NOTIFY_SOCKET, -1. */
int einhorn_status(const char* text);

/* Sends assignments as sd_notify(3) does: "READY=1", "WATCHDOG=1". Returns as einhorn_status(). */
int einhorn_notify(const char* assignments);

/* --- leaving -----------------------------------------------------------------------------------
 */

/* From now on this signal (0: SIGUSR2, what Einhorn sends unless --stop-signal says otherwise) asks
 * for a graceful stop. May be called for several signals. Returns a descriptor that becomes
 * readable when the signal has come, and stays so: for poll(), never to be read or closed. In a
 * forked child that is the parent's until the child calls this or einhorn_accept(). -1 on failure.
 */
int einhorn_on_stop(int signal);

/* 1 once such a signal has come. */
int einhorn_stopping(void);

/* The next connection, close-on-exec and blocking; -1 when a stop was asked for (errno ECANCELED)
 * or accept() failed for good. Several workers wake up for one connection and one gets it, so the
 * listener is made non-blocking, for all its users. */
int einhorn_accept(int listener);

#ifdef __cplusplus
}
#endif

#endif
