// The same as worker.py, in Node: /hang, /sleep/S, /leak/M, /fork, and otherwise who it is.
'use strict';

const { spawn } = require('child_process');
const http = require('http');
const path = require('path');
const worker = require(path.join(__dirname, '..', '..', '..', 'sdk', 'node'));

const interval = Number(process.argv[2] || 0);
const kept = [];
let count = 0;

function hangForEver() {
  for (;;) { /* nothing else gets a turn */ }
}

function act(url, done) {
  const [, verb, argument] = url.split('/');
  if (verb === 'hang') {
    hangForEver();
  } else if (verb === 'sleep') {
    setTimeout(done, Number(argument) * 1000);
    return;
  } else if (verb === 'leak') {
    kept.push(Buffer.alloc(Number(argument) * 1024 * 1024, 'x'));
  } else if (verb === 'fork') {
    kept.push(spawn('/bin/sh', ['-c', 'trap "" USR2; while :; do sleep 1000; done']));
  }
  done();
}

const server = http.createServer((request, response) => {
  count += 1;
  const id = `r${count}-${process.pid}`;
  worker.ping({ requestId: id, busy: true });
  // What it is busy with is known before it begins.
  setImmediate(() => setTimeout(() => act(request.url, () => {
    worker.ping({ requestId: id, busy: false });
    const body = JSON.stringify({ pid: process.pid, count });
    response.writeHead(200, { 'Content-Length': body.length, Connection: 'close' });
    response.end(body);
  }), 20));
});

if (process.argv.includes('ignore')) {
  process.on('SIGUSR2', () => {});
} else {
  worker.onStop(() => server.close(() => process.exit(0)));
}
process.on('SIGUSR1', () => {});
worker.listen(server);
server.on('listening', () => worker.ack());
if (interval > 0) {
  setInterval(() => worker.ping(), interval);
}
