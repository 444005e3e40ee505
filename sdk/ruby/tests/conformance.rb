# frozen_string_literal: true

# The conformance program in Ruby; what it does is written down in
# tests/integration/sdk/scenario.py.

require "einhorn/worker"
require "json"

Worker = Einhorn::Worker

def which
  text = ENV.fetch("SDK_SOCKET", "0")
  text =~ /\A\d+\z/ ? text.to_i : text
end

# [what it returned, why it failed]
def failure
  [yield, nil]
rescue RuntimeError => e
  [nil, e.message]
end

def ack
  case ENV.fetch("SDK_ACK", "auto")
  when "fd" then Worker.ack(:fd)
  when "notify" then Worker.ack(:notify)
  when "direct" then Worker.ack(:direct, ENV["EINHORN_SOCK_PATH"])
  else Worker.ack
  end
end

def tell
  listener, error = failure { Worker.listener(which) }
  puts JSON.generate(
    "worker" => Worker.is_worker?, "why" => failure { Worker.ensure_worker! }[1],
    "index" => Worker.einhorn_child_index || -1, "count" => Worker.einhorn_fd_count,
    "fd" => listener ? listener.fileno : -1, "error" => error,
    "ack" => Worker.ack || false, "ping" => Worker.ping("x", busy: false) || false,
    "status" => Worker.status("x")
  )
end

def wait_for_file(file)
  File.write("#{file}.begun", "")
  sleep 0.005 until File.exist?(file)
end

def child_is_told?
  child = fork do
    Process.kill(:USR2, Process.pid)
    sleep 0.001 until Worker.stopping?
    exit!(0)
  end
  Process.wait2(child)[1].success?
end

def act(path)
  case path
  when "/ack" then ack
  when "/ping" then Worker.ping("100%25 \"sure\"\nü", busy: true, status: "serving")
  when "/status" then Worker.status("warming up")
  when "/fork" then child_is_told?
  when %r{\A/slow\?(.*)} then wait_for_file(Regexp.last_match(1)) && false
  else false
  end
end

def serve(connection)
  request = +""
  request << connection.readpartial(4096) until request.include?("\r\n\r\n")
  sent = begin
    act(request.split(" ")[1])
  rescue RuntimeError, SystemCallError => e
    warn e.message
    "error"
  end
  body = JSON.generate("pid" => Process.pid, "index" => Worker.einhorn_child_index,
                       "worker" => Worker.is_worker?, "sent" => sent || false)
  connection.write("HTTP/1.1 200 OK\r\nContent-Length: #{body.bytesize}\r\n" \
                   "Connection: close\r\n\r\n#{body}")
rescue EOFError, SystemCallError
  nil # the client went away
ensure
  connection.close
end

if ARGV == ["tell"]
  tell
  exit
end

Worker.on_stop
listener = if Worker.einhorn_fd_count.positive?
  Worker.listener(which)
else
  TCPServer.new("127.0.0.1", 0).tap { |own| puts "listening on #{own.local_address.ip_port}" }
end
$stdout.flush
ack if ENV.fetch("SDK_ACK_AT", "start") == "start"
threads = []
Worker.connections(listener) do |connection|
  threads.select!(&:alive?)
  threads << Thread.new(connection) { |client| serve(client) }
end
threads.each(&:join)
