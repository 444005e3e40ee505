<?php

// The conformance program in PHP; what it does is written down in tests/integration/sdk/scenario.py.

declare(strict_types=1);

require getenv('SDK_PHP') . '/EinhornException.php';
require getenv('SDK_PHP') . '/Worker.php';

use Einhorn\EinhornException;
use Einhorn\Worker;

function env(string $name, string $otherwise): string
{
    $value = getenv($name);
    return $value === false ? $otherwise : $value;
}

function which(): int|string
{
    $text = env('SDK_SOCKET', '0');
    return ctype_digit($text) ? (int) $text : $text;
}

/** [what it returned, why it failed] */
function failure(callable $call): array
{
    try {
        return [$call(), null];
    } catch (EinhornException $error) {
        return [null, $error->getMessage()];
    }
}

function tell(): void
{
    [$listener, $error] = failure(fn () => Worker::listener(which()));
    echo json_encode([
        'worker' => Worker::isWorker(),
        'why' => failure(fn () => Worker::requireWorker())[1],
        'index' => Worker::index() ?? -1,
        'count' => Worker::socketCount(),
        'fd' => $listener === null ? -1 : Worker::fd(which()),
        'error' => $error,
        'ack' => Worker::ack(),
        'ping' => Worker::ping('x', busy: false),
        'status' => Worker::status('x'),
    ]), "\n";
}

function wait_for_file(string $file): void
{
    touch("$file.begun");
    for (clearstatcache(); !file_exists($file); clearstatcache()) {
        usleep(5000);
    }
}

function act(string $path): bool
{
    switch ($path) {
        case '/ack':
            return Worker::ack(env('SDK_ACK', 'auto'));
        case '/ping':
            return Worker::ping("100%25 \"sure\"\nü", busy: true, status: 'serving');
        case '/status':
            return Worker::status('warming up');
    }
    if (str_starts_with($path, '/slow?')) {
        wait_for_file(substr($path, 6));
    }
    return false;
}

/** @param resource $client */
function serve($client): void
{
    $request = '';
    while (!str_contains($request, "\r\n\r\n")) {
        $got = fread($client, 4096);
        if ($got === false || $got === '') {
            return;
        }
        $request .= $got;
    }
    try {
        $sent = act(explode(' ', $request)[1]);
    } catch (EinhornException $error) {
        fwrite(STDERR, $error->getMessage() . "\n");
        $sent = 'error';
    }
    $body = json_encode([
        'pid' => getmypid(),
        'index' => Worker::index(),
        'worker' => Worker::isWorker(),
        'sent' => $sent,
    ]);
    $length = strlen($body);
    fwrite($client, "HTTP/1.1 200 OK\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$body");
}

if (($argv[1] ?? '') === 'tell') {
    tell();
    exit(0);
}

try {
    Worker::onStop();
    if (Worker::socketCount() > 0) {
        $listener = Worker::listener(which());
    } else {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        echo 'listening on ', explode(':', stream_socket_get_name($listener, false))[1], "\n";
    }
    if (env('SDK_ACK_AT', 'start') === 'start') {
        Worker::ack(env('SDK_ACK', 'auto'));
    }
} catch (EinhornException $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
while ($client = Worker::accept($listener)) {
    serve($client);
    fclose($client);
}
