'use strict';

// The conformance program in Node; what it does is written down in
// tests/integration/sdk/scenario.py.

const fs = require('node:fs');
const http = require('node:http');
const einhorn = require('einhorn-worker');

const env = (name, otherwise) => process.env[name] ?? otherwise;
const which = () => {
  const text = env('SDK_SOCKET', '0');
  return /^\d+$/.test(text) ? Number(text) : text;
};
const via = () => env('SDK_ACK', 'auto');

// [what it returned, why it failed]
function failure(call) {
  try {
    return [call(), null];
  } catch (error) {
    if (!(error instanceof einhorn.EinhornError)) throw error;
    return [null, error.message];
  }
}

async function tell() {
  const [fd, error] = failure(() => einhorn.fd(which()));
  const told = {
    worker: einhorn.isWorker(),
    why: failure(einhorn.requireWorker)[1],
    index: einhorn.index() ?? -1,
    count: einhorn.socketCount(),
    fd: fd ?? -1,
    error,
    ack: await einhorn.ack(),
    ping: await einhorn.ping({ requestId: 'x', busy: false }),
    status: einhorn.status('x'),
  };
  console.log(JSON.stringify(told));
}

function waitForFile(file) {
  fs.writeFileSync(`${file}.begun`, '');
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (!fs.existsSync(file)) return;
      clearInterval(timer);
      resolve();
    }, 5);
  });
}

async function act(path) {
  if (path === '/ack') return einhorn.ack(via());
  if (path === '/ping') {
    return einhorn.ping({ requestId: '100%25 "sure"\nü', busy: true, status: 'serving' });
  }
  if (path === '/status') return einhorn.status('warming up');
  if (path.startsWith('/slow?')) await waitForFile(path.slice(6));
  return false;
}

async function serve() {
  const server = http.createServer(async (request, response) => {
    const sent = await act(request.url).catch((error) => {
      console.error(error.message);
      return 'error';
    });
    const body = JSON.stringify({
      pid: process.pid,
      index: einhorn.index(),
      worker: einhorn.isWorker(),
      sent,
    });
    response.writeHead(200, { 'Content-Length': body.length, Connection: 'close' });
    response.end(body);
  });
  einhorn.onStop(() => einhorn.drain(server));
  if (einhorn.socketCount() > 0) einhorn.listen(server, which());
  else server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.on('listening', resolve));
  if (einhorn.socketCount() === 0) console.log(`listening on ${server.address().port}`);
  if (env('SDK_ACK_AT', 'start') === 'start') await einhorn.ack(via());
}

(process.argv[2] === 'tell' ? tell() : serve()).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
