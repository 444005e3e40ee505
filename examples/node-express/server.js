'use strict';

// An Express application (or one of the same form) that loses no request when it is told to leave.

const http = require('node:http');
const einhorn = require('../../sdk/node');

function framework() {
  try {
    return require('express');
  } catch {
    return require('./router'); // Express is not installed
  }
}

const app = framework()();

app.get('/', (request, response) => {
  response.json({ pid: process.pid, hello: 'from Express' });
});

const server = http.createServer(app);

// Takes no more; the process ends when the last answer is out.
einhorn.onStop(() => einhorn.drain(server), 'SIGUSR2', 'SIGTERM', 'SIGINT');
if (einhorn.socketCount() > 0) einhorn.listen(server);
else server.listen(8080, '127.0.0.1');
server.on('listening', () => einhorn.ack());
