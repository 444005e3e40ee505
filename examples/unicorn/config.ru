# A Rack application.

run(lambda do |_environment|
  body = %({"pid":#{Process.pid},"hello":"from Unicorn"}\n)
  [200, { 'Content-Type' => 'application/json', 'Content-Length' => body.bytesize.to_s }, [body]]
end)
