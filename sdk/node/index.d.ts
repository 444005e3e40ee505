/**
 * What a worker of Einhorn needs: its sockets, saying that it is ready, leaving when asked to.
 *
 * Outside Einhorn `isWorker()` is false, and `ack`, `ping`, `status` and `notify` answer false and
 * tell nobody, so that a program can be started by hand.
 */

/** What was asked of Einhorn is not there; the message says what. */
export class EinhornError extends Error {}

/** Does Einhorn run this process? True if EINHORN_MASTER_PID names its parent. */
export function isWorker(): boolean;

/** Throws an EinhornError, with the reason, unless Einhorn runs this process. */
export function requireWorker(): void;

/** This worker's index, unique among living workers of the pool; null outside Einhorn. */
export function index(): number | null;

/** How many sockets were handed in, by Einhorn's -b or by systemd. */
export function socketCount(): number;

/** The sockets' names (-b ADDR,name=NAME) in the order of -b; "unknown" where none was given. */
export function names(): string[];

/** The descriptor of a socket, by number (from 0, in the order of -b; 0 if left out) or by name. */
export function fd(which?: number | string): number;

/**
 * Lets a server (of net, http, https, http2, or a framework's own with Node's `listen({ fd })`)
 * listen on a socket that was handed in, and returns what its `listen` returns.
 */
export function listen<R>(server: { listen(options: { fd: number }): R }, which?: number | string): R;

/**
 * How an ACK travels:
 * - `auto`: the command socket, by its path or, if that can't be reached, by descriptor
 * - `path`: the command socket by EINHORN_SOCK_PATH
 * - `fd`: by EINHORN_SOCK_FD (einhorn -g); good for one message
 * - `notify`: READY=1 to NOTIFY_SOCKET, for `einhorn -m notify`; the others are for `-m manual`.
 *   Needs the program systemd-notify
 */
export type Via = 'auto' | 'path' | 'fd' | 'notify';

/** Says "I am ready". False, and nothing is said, if this is no worker. */
export function ack(via?: Via): Promise<boolean>;

/** Says "I am alive", and what this worker is at. False if this is no worker. */
export function ping(told?: { requestId?: unknown; busy?: boolean; status?: string }): Promise<boolean>;

/**
 * Sends assignments as sd_notify(3) does ("READY=1", "WATCHDOG=1"). False without NOTIFY_SOCKET.
 * Node can't do that itself: this runs systemd-notify(1), and throws if there is none.
 */
export function notify(assignments: string): boolean;

/** A line about this worker, shown by `einhornsh -e status`; by `notify`. */
export function status(text: string): boolean;

/**
 * From now on these signals (SIGUSR2 if none is named) ask for a graceful stop: the callback is
 * called once. Usually it closes the servers; the process ends when nothing is left to do.
 */
export function onStop(callback: () => void, ...signals: NodeSignal[]): void;

/**
 * Lets a server of http or https leave without losing a request: it takes no more connections, every
 * answer from now on ends its connection, and those on which nothing comes within `idle`
 * milliseconds (1000) end then.
 */
export function drain(server: HttpServer, options?: { idle?: number }): void;

/** Was a stop asked for? */
export function stopping(): boolean;

/** A server of http or https, as `drain` uses it. */
export interface HttpServer {
  closeIdleConnections(): void;
}

export type NodeSignal = `SIG${string}`;
