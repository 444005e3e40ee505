<?php
// Einhorn's zygote for PHP (command line, with pcntl and posix); see docs/preload.md.
//
//   preload.php CODE SCRIPT [ARGUMENT...]

final class EinhornPreload
{
    public static $master;
    public static bool $loaded = false;
    public static int $me = 0;
    private static $command = null; // -g: stays open as long as the worker
    private static $libc = null; // what PHP itself can't do; null where FFI is not to be had

    public static function say(array $lines): bool
    {
        $text = [];
        foreach ($lines as $key => $value) {
            $text[] = $key . '=' . trim(preg_replace('/\s+/', ' ', (string) $value));
        }
        return (bool) @fwrite(self::$master, implode("\n", $text));
    }

    // Ends this process at once, without what the code has registered for its end.
    public static function vanish(): never
    {
        posix_kill(getmypid(), SIGKILL);
        exit(1);
    }

    public static function refuse(string $text): never
    {
        self::say(['ERRNO' => 22, 'STATUS' => $text]);
        self::$loaded = true;
        exit(1);
    }

    public static function listeners(): array
    {
        $found = [];
        for ($i = 0; $i < (int) getenv('EINHORN_FD_COUNT'); $i++) {
            $found[] = @readlink('/proc/self/fd/' . getenv("EINHORN_FD_$i"));
        }
        return $found;
    }

    private static function sockets(): array
    {
        $found = [];
        foreach (scandir('/proc/self/fd') as $fd) {
            if (str_starts_with((string) @readlink("/proc/self/fd/$fd"), 'socket:')) {
                $found[] = $fd;
            }
        }
        return $found;
    }

    // -g: a connection of this worker's own to the command socket, as a descriptor.
    private static function connect(string $path): void
    {
        $before = self::sockets();
        self::$command = @stream_socket_client("unix://$path", $code, $text);
        if (self::$command === false) {
            fwrite(STDERR, "einhorn: connect $path: $text\n");
            exit(1);
        }
        self::env('EINHORN_SOCK_FD', (string) current(array_diff(self::sockets(), $before)));
    }

    public static function env(string $name, ?string $value): void
    {
        if ($value === null) {
            putenv($name);
            unset($_ENV[$name], $_SERVER[$name]);
            return;
        }
        putenv("$name=$value");
        $_ENV[$name] = $_SERVER[$name] = $value;
    }

    // In a new worker: from here on it is one.
    public static function beWorker(int $parent, array $order): void
    {
        while (posix_getppid() === $parent) {
            usleep(100);
        }
        posix_setpgid(0, 0);
        mt_srand();
        self::env('EINHORN_MASTER_PID', (string) posix_getppid());
        if (getenv('LISTEN_FDS') !== false) {
            self::env('LISTEN_PID', (string) getmypid());
        }
        $number = $order['FORK'];
        if (isset($order['DEATH_SIGNAL'])) {
            $guard = posix_getppid();
            self::$libc->prctl(1, (int) $order['DEATH_SIGNAL']);
            if (posix_getppid() !== $guard) {
                self::vanish();
            }
        }
        $connect = $order['CONNECT'] ?? null;
        unset($order['FORK'], $order['DEATH_SIGNAL'], $order['CONNECT']);
        foreach ($order as $key => $value) {
            self::env($key, $value);
        }
        if (!self::say(['FORKED' => $number])) {
            self::vanish(); // nobody knows of this process
        }
        fclose(self::$master);
        if ($connect !== null) {
            self::connect($connect);
        }
    }

    // True in the new worker. It is a child of neither this process nor the one in between, so
    // Einhorn becomes its parent.
    public static function forkTwice(int $number, array $order): bool
    {
        $between = @pcntl_fork();
        if ($between === 0) {
            $parent = getmypid();
            $worker = @pcntl_fork();
            if ($worker === 0) {
                self::beWorker($parent, $order);
                return true;
            }
            if ($worker < 0) {
                posix_kill(getmypid(), SIGTERM);
            }
            self::vanish();
        }
        $failed = $between < 0;
        if (!$failed && pcntl_waitpid($between, $status) === $between) {
            $failed = !pcntl_wifsignaled($status) || pcntl_wtermsig($status) !== SIGKILL;
        }
        if ($failed) {
            self::say(['FAILED' => $number, 'ERRNO' => 11, 'STATUS' => 'fork failed']);
        }
        return false;
    }

    // Forks what it is asked for; returns in workers only.
    public static function serve(): void
    {
        $last = 0;
        while (true) {
            $message = fread(self::$master, 65536);
            if ($message === false || $message === '') {
                self::vanish();
            }
            $order = [];
            foreach (explode("\n", $message) as $line) {
                if (str_contains($line, '=')) {
                    [$key, $value] = explode('=', $line, 2);
                    $order[$key] = $value;
                }
            }
            $number = (int) ($order['FORK'] ?? 0);
            if ($number <= $last) {
                continue; // said again by a new master
            }
            $last = $number;
            if (isset($order['DEATH_SIGNAL']) && self::$libc === null) {
                self::say(['FAILED' => $number, 'ERRNO' => 95,
                    'STATUS' => '-k: PHP needs the extension FFI for that']);
                continue;
            }
            if (self::forkTwice($number, $order)) {
                return;
            }
        }
    }

    public static function start(): void
    {
        self::$me = getmypid();
        try {
            self::$libc = FFI::cdef('int prctl(int, unsigned long, ...); int close(int);', 'libc.so.6');
        } catch (Throwable) {
            self::$libc = null;
        }
        $fd = (int) getenv('EINHORN_ZYGOTE_FD');
        self::$master = fopen("php://fd/$fd", 'r+'); // a copy
        self::$libc?->close($fd);
        stream_set_blocking(self::$master, true);
        stream_set_read_buffer(self::$master, 0);
        stream_set_write_buffer(self::$master, 0);
        self::env('EINHORN_ZYGOTE_FD', null);
        self::env('EINHORN_GC_BEFORE_FORK', null);
        register_shutdown_function(static function (): void {
            if (self::$loaded || getmypid() !== self::$me) {
                return;
            }
            $error = error_get_last();
            self::refuse($error !== null && ($error['type'] & (E_ERROR | E_PARSE | E_COMPILE_ERROR))
                ? "{$error['message']} ({$error['file']}, line {$error['line']})"
                : 'the code called exit while it was loaded');
        });
    }

    public static function check(string $path, array $before): void
    {
        if (getmypid() !== self::$me) {
            fwrite(STDERR, "einhorn: $path has forked while it was loaded; this child of it ends\n");
            self::vanish();
        }
        if (!function_exists('einhorn_main')) {
            self::refuse("$path has no function einhorn_main()");
        }
        if (self::listeners() !== $before) {
            self::refuse('the code closed a socket of -b while it was loaded');
        }
        self::$loaded = true;
        gc_collect_cycles();
        if (!self::say(['READY' => 1])) {
            fwrite(STDERR, "einhorn: the line to Einhorn is lost\n");
            exit(76);
        }
    }
}

foreach (['pcntl_fork', 'posix_setpgid'] as $function) {
    if (!function_exists($function)) {
        fwrite(STDERR, "einhorn: preloading PHP needs the extensions pcntl and posix\n");
        exit(1);
    }
}
$einhorn_words = array_slice($argv, 1);
$einhorn_code = array_shift($einhorn_words);
$argv = $_SERVER['argv'] = $einhorn_words ?: [$einhorn_code];
$argc = $_SERVER['argc'] = count($argv);
EinhornPreload::start();
$einhorn_before = EinhornPreload::listeners();
try {
    require $einhorn_code;
} catch (Throwable $einhorn_error) {
    fwrite(STDERR, "$einhorn_error\n");
    EinhornPreload::refuse(get_class($einhorn_error) . ": {$einhorn_error->getMessage()} " .
        "({$einhorn_error->getFile()}, line {$einhorn_error->getLine()})");
}
EinhornPreload::check($einhorn_code, $einhorn_before);
EinhornPreload::serve();
unset($einhorn_words, $einhorn_code, $einhorn_before);
$einhorn_result = einhorn_main();
exit(is_int($einhorn_result) ? $einhorn_result : 0);
