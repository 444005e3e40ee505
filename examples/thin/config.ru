# A Rack application.

run(lambda do |_environment|
  body = %({"pid":#{Process.pid},"hello":"from Thin"}\n)
  [200, { 'Content-Type' => 'application/json', 'Content-Length' => body.bytesize.to_s }, [body]]
end)
