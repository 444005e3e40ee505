<?php
$body = json_encode(['pid' => getmypid(), 'hello' => 'from PHP']) . "\n";
header('Content-Type: application/json');
header('Content-Length: ' . strlen($body));
echo $body;
