'use strict';

// An HTTP server in Node that loses no request when it is told to leave.

const http = require('node:http');
const einhorn = require('../../sdk/node');

const server = http.createServer((request, response) => {
  const body = `${JSON.stringify({ pid: process.pid, hello: 'from Node' })}\n`;
  response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length });
  response.end(body);
});

// Takes no more; the process ends when the last answer is out.
einhorn.onStop(() => einhorn.drain(server), 'SIGUSR2', 'SIGTERM', 'SIGINT');
if (einhorn.socketCount() > 0) einhorn.listen(server);
else server.listen(8080, '127.0.0.1');
server.on('listening', () => einhorn.ack());
