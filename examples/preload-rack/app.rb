# frozen_string_literal: true

# A Rack application with Puma as a library, loaded once per version.

require "einhorn/worker"
require "puma"
require "puma/server"
require "rack"

LOADED_BY = Process.pid

APPLICATION = Rack::Builder.app do
  run(lambda do |_environment|
    body = %({"pid":#{Process.pid},"hello":"from Rack","loaded_by":#{LOADED_BY}}\n)
    [200, {"Content-Type" => "application/json", "Content-Length" => body.bytesize.to_s}, [body]]
  end)
end

def einhorn_main
  server = Puma::Server.new(APPLICATION, Puma::Events.strings, {force_shutdown_after: 30})
  listener = Einhorn::Worker.listener
  server.binder.inherit_tcp_listener(*listener.addr.values_at(3, 1), listener)
  server.min_threads = 1
  server.max_threads = Integer(ENV.fetch("THREADS", "4"))
  reader, writer = IO.pipe
  trap("USR2") { writer.write_nonblock("x", exception: false) }
  serving = server.run
  Einhorn::Worker.ack!
  reader.read(1)
  server.stop # takes no more, and finishes what it has
  serving.join
end
