<?php

declare(strict_types=1);

namespace Einhorn;

/**
 * What a worker of Einhorn needs: its sockets, saying that it is ready, leaving when asked to.
 *
 *     Worker::onStop();                            // SIGUSR2 means: finish and leave
 *     $listener = Worker::listener('web');         // or listener(0)
 *     Worker::ack();
 *     while ($connection = Worker::accept($listener)) {
 *         serve($connection);
 *     }
 *
 * Outside Einhorn isWorker() is false, and ack(), ping(), status() and notify() return false and
 * tell nobody, so that a program can be started by hand. What fails throws an EinhornException.
 */
final class Worker
{
    public const VERSION = '0.1.0';

    private static bool $stopping = false;

    // --- who am I -------------------------------------------------------------------------------

    private static function number(string $variable): ?int
    {
        $text = getenv($variable);
        return $text !== false && ctype_digit($text) ? (int) $text : null;
    }

    /** Does Einhorn run this process? True if EINHORN_MASTER_PID names its parent. */
    public static function isWorker(): bool
    {
        return self::number('EINHORN_MASTER_PID') === posix_getppid();
    }

    /** Throws, with the reason, unless Einhorn runs this process. */
    public static function requireWorker(): void
    {
        if (self::isWorker()) {
            return;
        }
        $master = getenv('EINHORN_MASTER_PID');
        throw new EinhornException('not a worker of Einhorn: EINHORN_MASTER_PID is ' . (
            $master === false ? 'not set' : "$master, but the parent is " . posix_getppid()
        ));
    }

    /** This worker's index, unique among living workers of the pool; null outside Einhorn. */
    public static function index(): ?int
    {
        return self::number('EINHORN_CHILD_INDEX');
    }

    // --- sockets --------------------------------------------------------------------------------

    /** systemd's variables count only for the process they were made for. */
    private static function listenFds(): int
    {
        return self::number('LISTEN_PID') === getmypid() ? (self::number('LISTEN_FDS') ?? 0) : 0;
    }

    /** How many sockets were handed in, by Einhorn's -b or by systemd. */
    public static function socketCount(): int
    {
        return self::number('EINHORN_FD_COUNT') ?? self::listenFds();
    }

    /**
     * The sockets' names (-b ADDR,name=NAME) in the order of -b; "unknown" where none was given.
     *
     * @return list<string>
     */
    public static function names(): array
    {
        $given = (string) getenv('LISTEN_FDNAMES');
        return $given === '' ? [] : array_slice(explode(':', $given), 0, self::socketCount());
    }

    /** The descriptor of a socket, by number (from 0, in the order of -b) or by name. */
    public static function fd(int|string $which = 0): int
    {
        if (is_string($which)) {
            $place = array_search($which, self::names(), true);
            if ($place === false) {
                $known = implode(':', self::names()) ?: 'none';
                throw new EinhornException("there is no socket named \"$which\"; there are: $known");
            }
            $which = $place;
        }
        $count = self::socketCount();
        if ($which < 0 || $which >= $count) {
            throw new EinhornException(
                "there is no socket $which: $count were handed in (einhorn -b)"
            );
        }
        if (getenv('EINHORN_FD_COUNT') === false) {
            return 3 + $which;
        }
        return self::number("EINHORN_FD_$which")
            ?? throw new EinhornException("EINHORN_FD_$which is not set, or is no number");
    }

    /**
     * A socket that was handed in, by number or name, as a stream for stream_socket_accept().
     *
     * It is non-blocking, because several workers wake up for one connection and only one gets it;
     * accept() takes care of that.
     *
     * @return resource
     */
    public static function listener(int|string $which = 0)
    {
        $fd = self::fd($which);
        // In PHP this is how a stream is made of a descriptor; of a socket it makes a socket.
        $stream = @fopen("php://fd/$fd", 'r+');
        if ($stream === false || stream_socket_get_name($stream, false) === false) {
            throw new EinhornException("socket $which: descriptor $fd is no open socket");
        }
        stream_set_blocking($stream, false);
        return $stream;
    }

    // --- telling Einhorn ------------------------------------------------------------------------

    /** A unix socket's path as PHP writes it: an `@` in front means an abstract one. */
    private static function path(string $path): string
    {
        return str_starts_with($path, '@') ? "\0" . substr($path, 1) : $path;
    }

    private static function sendByPath(string $line): bool
    {
        $path = getenv('EINHORN_SOCK_PATH');
        if ($path === false) {
            throw new EinhornException('EINHORN_SOCK_PATH is not set');
        }
        $stream = @stream_socket_client('unix://' . self::path($path), $code, $reason);
        if ($stream === false || @fwrite($stream, $line) !== strlen($line)) {
            throw new EinhornException("could not send to $path: $reason");
        }
        fclose($stream);
        return true;
    }

    private static function sendByDescriptor(string $line): bool
    {
        $fd = self::number('EINHORN_SOCK_FD')
            ?? throw new EinhornException('EINHORN_SOCK_FD is not set (einhorn -g sets it)');
        $stream = @fopen("php://fd/$fd", 'r+');
        if ($stream === false || @fwrite($stream, $line) !== strlen($line)) {
            throw new EinhornException("could not send to EINHORN_SOCK_FD ($fd)");
        }
        fclose($stream);
        return true;
    }

    /** @param array<string, mixed> $message */
    private static function send(string $via, array $message): bool
    {
        $json = json_encode($message, JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR);
        // A `%` would be taken for an escape of the line, so it becomes one of JSON.
        $line = str_replace('%', '\u0025', $json) . "\n";
        if ($via === 'fd') {
            return self::sendByDescriptor($line);
        }
        try {
            return self::sendByPath($line);
        } catch (EinhornException $error) {
            if ($via !== 'auto' || getenv('EINHORN_SOCK_FD') === false) {
                throw $error;
            }
            return self::sendByDescriptor($line);
        }
    }

    /**
     * Says "I am ready". False, and nothing is said, if this is no worker.
     *
     * @param string $via "auto": the command socket, by its path or, if that can't be reached, by
     *     descriptor. "path": by EINHORN_SOCK_PATH. "fd": by EINHORN_SOCK_FD (einhorn -g), good for
     *     one message. "notify": READY=1 to NOTIFY_SOCKET, for einhorn -m notify; the others are for
     *     -m manual.
     */
    public static function ack(string $via = 'auto'): bool
    {
        if (!in_array($via, ['auto', 'path', 'fd', 'notify'], true)) {
            throw new \ValueError("via is \"auto\", \"path\", \"fd\" or \"notify\", not \"$via\"");
        }
        if (!self::isWorker()) {
            return false;
        }
        if ($via === 'notify') {
            return self::notify('READY=1');
        }
        return self::send($via, ['command' => 'worker:ack', 'pid' => getmypid()]);
    }

    /** Says "I am alive", and what this worker is at. False if this is no worker. */
    public static function ping(mixed $requestId = null, ?bool $busy = null, ?string $status = null): bool
    {
        if (!self::isWorker()) {
            return false;
        }
        $told = ['request_id' => $requestId, 'busy' => $busy, 'status' => $status];
        $message = ['command' => 'worker:ping', 'pid' => getmypid()];
        return self::send('auto', $message + array_filter($told, fn ($value) => $value !== null));
    }

    /**
     * Sends assignments as sd_notify(3) does ("READY=1", "WATCHDOG=1") to NOTIFY_SOCKET. False if
     * there is none.
     */
    public static function notify(string $assignments): bool
    {
        $path = (string) getenv('NOTIFY_SOCKET');
        if ($path === '') {
            return false;
        }
        $stream = @stream_socket_client('udg://' . self::path($path), $code, $reason);
        if ($stream === false || @fwrite($stream, $assignments) !== strlen($assignments)) {
            throw new EinhornException("could not send to $path: $reason");
        }
        fclose($stream);
        return true;
    }

    /** A line about this worker, shown by `einhornsh -e status`. False without NOTIFY_SOCKET. */
    public static function status(string $text): bool
    {
        return self::notify('STATUS=' . str_replace("\n", ' ', $text));
    }

    // --- leaving --------------------------------------------------------------------------------

    /**
     * From now on these signals (SIGUSR2 if none is named) ask for a graceful stop: stopping() is
     * true, accept() returns null, and the callback, if there is one, is called.
     */
    public static function onStop(?callable $callback = null, int ...$signals): void
    {
        pcntl_async_signals(true);
        foreach ($signals ?: [SIGUSR2] as $signal) {
            pcntl_signal($signal, static function () use ($callback): void {
                self::$stopping = true;
                if ($callback !== null) {
                    $callback();
                }
            }, true); // a read that waits for the rest of a request goes on
        }
    }

    /** Was a stop asked for? */
    public static function stopping(): bool
    {
        return self::$stopping;
    }

    /**
     * The next connection of a listener; null once a stop was asked for.
     *
     * @param resource $listener
     * @return resource|null
     */
    public static function accept($listener)
    {
        while (!self::$stopping) {
            [$read, $write, $except] = [[$listener], null, null];
            // PHP handles signals between two instructions: one that comes just before the wait
            // does not end it, so it is a short one.
            if (!@stream_select($read, $write, $except, 0, 500_000) || self::$stopping) {
                continue;
            }
            $connection = @stream_socket_accept($listener, 0);
            if ($connection !== false) {
                return $connection;
            }
        }
        return null;
    }
}
