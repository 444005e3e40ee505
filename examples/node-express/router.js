'use strict';

// As much of Express as server.js uses.

module.exports = function router() {
  const layers = [];

  function app(request, response) {
    response.set = (name, value) => response.setHeader(name, value);
    response.json = (value) => {
      const body = JSON.stringify(value);
      response.setHeader('Content-Type', 'application/json; charset=utf-8');
      response.setHeader('Content-Length', Buffer.byteLength(body));
      response.end(body);
    };
    const path = request.url.split('?')[0];
    const matching = layers.filter((l) => l.path === undefined
      || (l.method === request.method && l.path === path));
    let at = 0;
    const next = () => {
      if (at < matching.length) matching[at++].handler(request, response, next);
      else response.writeHead(404).end('not found\n');
    };
    next();
  }

  app.use = (handler) => layers.push({ handler });
  app.get = (path, handler) => layers.push({ method: 'GET', path, handler });
  app.post = (path, handler) => layers.push({ method: 'POST', path, handler });
  return app;
};
