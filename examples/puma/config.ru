# A Rack application.

run(lambda do |_environment|
  body = %({"pid":#{Process.pid},"hello":"from Puma"}\n)
  [200, { 'Content-Type' => 'application/json', 'Content-Length' => body.bytesize.to_s }, [body]]
end)
