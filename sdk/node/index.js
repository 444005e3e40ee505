'use strict';

// What a worker of Einhorn needs: its sockets, saying that it is ready, leaving when asked to.
// index.d.ts says what each function takes and gives.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');

class EinhornError extends Error {}

// --- who am I -----------------------------------------------------------------------------------

function number(variable) {
  const text = process.env[variable];
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : null;
}

function isWorker() {
  return number('EINHORN_MASTER_PID') === process.ppid;
}

function requireWorker() {
  if (isWorker()) return;
  const master = process.env.EINHORN_MASTER_PID;
  throw new EinhornError(
    'not a worker of Einhorn: EINHORN_MASTER_PID is ' +
      (master === undefined ? 'not set' : `${master}, but the parent is ${process.ppid}`),
  );
}

function index() {
  return number('EINHORN_CHILD_INDEX');
}

// --- sockets ------------------------------------------------------------------------------------

// systemd's variables count only for the process they were made for.
function listenFds() {
  return number('LISTEN_PID') === process.pid ? (number('LISTEN_FDS') ?? 0) : 0;
}

function socketCount() {
  return number('EINHORN_FD_COUNT') ?? listenFds();
}

function names() {
  return (process.env.LISTEN_FDNAMES ?? '').split(':').filter(Boolean).slice(0, socketCount());
}

function isSocket(fd) {
  try {
    return fs.fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

function fd(which = 0) {
  let place = which;
  if (typeof which === 'string') {
    place = names().indexOf(which);
    if (place < 0) {
      const known = names().join(':') || 'none';
      throw new EinhornError(`there is no socket named "${which}"; there are: ${known}`);
    }
  }
  const count = socketCount();
  if (!(place >= 0 && place < count)) {
    throw new EinhornError(`there is no socket ${place}: ${count} were handed in (einhorn -b)`);
  }
  const variable = `EINHORN_FD_${place}`;
  const found = process.env.EINHORN_FD_COUNT === undefined ? 3 + place : number(variable);
  if (found === null) throw new EinhornError(`${variable} is not set, or is no number`);
  if (!isSocket(found)) throw new EinhornError(`${variable}: descriptor ${found} is no open socket`);
  return found;
}

// Node has no other way to make a listener of a descriptor than a server's listen().
function listen(server, which = 0) {
  return server.listen({ fd: fd(which) });
}

// --- telling Einhorn ----------------------------------------------------------------------------

function sendByPath(line) {
  const path = process.env.EINHORN_SOCK_PATH;
  if (path === undefined) return Promise.reject(new EinhornError('EINHORN_SOCK_PATH is not set'));
  return new Promise((resolve, reject) => {
    const connection = net.connect(path.startsWith('@') ? `\0${path.slice(1)}` : path);
    connection.on('error', reject);
    connection.end(line, () => {
      connection.destroy();
      resolve(true);
    });
  });
}

async function sendByDescriptor(line) {
  const connected = number('EINHORN_SOCK_FD');
  if (connected === null) throw new EinhornError('EINHORN_SOCK_FD is not set (einhorn -g sets it)');
  fs.writeSync(connected, line);
  return true;
}

async function send(via, message) {
  // A `%` would be taken for an escape of the line, so it becomes one of JSON.
  const line = `${JSON.stringify(message).replaceAll('%', '\\u0025')}\n`;
  if (via === 'fd') return sendByDescriptor(line);
  try {
    return await sendByPath(line);
  } catch (error) {
    if (via !== 'auto' || process.env.EINHORN_SOCK_FD === undefined) throw error;
    return sendByDescriptor(line);
  }
}

async function ack(via = 'auto') {
  if (!['auto', 'path', 'fd', 'notify'].includes(via)) {
    throw new TypeError(`via is "auto", "path", "fd" or "notify", not ${JSON.stringify(via)}`);
  }
  if (!isWorker()) return false;
  if (via === 'notify') return notify('READY=1');
  return send(via, { command: 'worker:ack', pid: process.pid });
}

async function ping({ requestId, busy, status: text } = {}) {
  if (!isWorker()) return false;
  const told = { request_id: requestId, busy, status: text };
  return send('auto', { command: 'worker:ping', pid: process.pid, ...told });
}

// Node has no datagram sockets of the unix family, so systemd-notify(1) is asked to send it.
function notify(assignments) {
  if (!process.env.NOTIFY_SOCKET) return false;
  const result = spawnSync('systemd-notify', assignments.split('\n').filter(Boolean));
  if (result.error) {
    throw new EinhornError(`NOTIFY_SOCKET needs systemd-notify: ${result.error.message}`);
  }
  if (result.status !== 0) throw new EinhornError(`systemd-notify: ${result.stderr}`.trim());
  return true;
}

function status(text) {
  return notify(`STATUS=${text.replaceAll('\n', ' ')}`);
}

// --- leaving ------------------------------------------------------------------------------------

let stopAsked = false;

function onStop(callback, ...signals) {
  for (const name of signals.length > 0 ? signals : ['SIGUSR2']) {
    process.on(name, () => {
      const first = !stopAsked;
      stopAsked = true;
      if (first) callback();
    });
  }
}

function stopping() {
  return stopAsked;
}

// http's own close() ends kept connections at once, under a request that is on its way; net's does not.
function drain(server, { idle = 1000 } = {}) {
  net.Server.prototype.close.call(server);
  server.prependListener('request', (request, response) => response.setHeader('Connection', 'close'));
  setTimeout(() => server.closeIdleConnections(), idle).unref();
}

module.exports = {
  EinhornError,
  ack,
  drain,
  fd,
  index,
  isWorker,
  listen,
  names,
  notify,
  onStop,
  ping,
  requireWorker,
  socketCount,
  status,
  stopping,
};
