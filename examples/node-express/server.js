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

app.use((request, response, next) => {
  if (stopping) response.set('Connection', 'close');
  next();
});
app.get('/', (request, response) => {
  response.json({ pid: process.pid, hello: 'from Express' });
});

let stopping = false;
const server = http.createServer(app);

function stop() {
  stopping = true;
  server.close(); // takes no more; the process ends when the last answer is out
  server.closeIdleConnections();
}

einhorn.onStop(stop, 'SIGUSR2', 'SIGTERM', 'SIGINT');
if (einhorn.socketCount() > 0) einhorn.listen(server);
else server.listen(8080, '127.0.0.1');
server.on('listening', () => einhorn.ack());
