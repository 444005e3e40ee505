# frozen_string_literal: true

# Run as a worker by tests/integration/test_sdk_conformance.py: uses Einhorn::Worker and
# Einhorn::Client in every way that programs written for Ruby Einhorn do, and writes what came of
# each to the file named by its argument.

require "einhorn/worker"
require "einhorn/client"
require "json"

W = Einhorn::Worker
C = Einhorn::Client
FOUND = {}

def note(key)
  FOUND[key] = begin
    yield
  rescue Exception => e # rubocop:disable Lint/RescueException
    "#{e.class} < #{e.class.superclass}"
  end
end

def with_env(changes)
  old = ENV.to_h
  changes.each { |name, value| ENV[name] = value }
  yield
ensure
  ENV.replace(old)
end

note("is_worker?") { W.is_worker? }
note("ensure_worker!") { W.ensure_worker! }
note("einhorn_child_index") { W.einhorn_child_index }
note("socket") { W.socket }
note("socket(1)") { W.socket(1) }
note("socket(7)") { W.socket(7) }
note("socket!") { W.socket! }
note("socket!(1)") { W.socket!(1) }
note("socket!(7)") { W.socket!(7) }
note("einhorn_fd(0)") { W.einhorn_fd(0) }
note("einhorn_fd(7)") { W.einhorn_fd(7) }
note("einhorn_fd_count") { W.einhorn_fd_count }
note("TCPServer") { TCPServer.for_fd(W.socket!).tap { |s| s.autoclose = false }.local_address.ipv4? }

note("ack! bad") { W.ack!(:telepathy) }
note("ack! direct") { W.ack!(:direct, ENV["EINHORN_SOCK_PATH"]) }
note("ack! nowhere") { W.ack!(:direct, "/nowhere") }
note("ack! fd kept") { W.ack!(:fd, true) }
note("fd kept") { IO.for_fd(ENV["EINHORN_SOCK_FD"].to_i, autoclose: false).closed? }
note("ping!") { W.ping!("seventh") }
note("ping! env") { W.ping!(7, :env) }
note("ack") { W.ack }
note("ack!") { W.ack! }
note("graceful_shutdown") { W.graceful_shutdown { |number| FOUND["signal"] = number } }

with_env("EINHORN_MASTER_PID" => "1") do
  note("other is_worker?") { W.is_worker? }
  note("other ensure_worker!") { W.ensure_worker! }
  note("other ack") { W.ack }
  note("other ack!") { W.ack! }
  note("other ping!") { W.ping!("x") }
end
with_env("EINHORN_MASTER_PID" => nil, "EINHORN_FD_COUNT" => nil, "EINHORN_SOCK_FD" => nil,
         "EINHORN_FD_0" => nil, "LISTEN_PID" => nil, "EINHORN_CHILD_INDEX" => nil) do
  note("none ensure_worker!") { W.ensure_worker! }
  note("none socket") { W.socket }
  note("none socket!") { W.socket! }
  note("none einhorn_fd_count") { W.einhorn_fd_count }
  note("none einhorn_child_index") { W.einhorn_child_index }
end
with_env("EINHORN_SOCK_FD" => nil) { note("no fd") { W.ack!(:fd) } }

client = C.for_path(ENV["EINHORN_SOCK_PATH"])
client.send_command("command" => "ehlo", "user" => "me 100%", "id" => 1)
note("ehlo") { client.receive_message }
client.send_command("command" => "state", "id" => :two)
note("state id") { (@reply = client.receive_message)["request_id"].inspect }
note("state") do
  state = C::Transport.deserialize_message(@reply["message"])[:state]
  child = state[:children].fetch(Process.pid)
  [child[:type], child[:signaled].class, child[:pinged_request_id]].map(&:to_s)
end
note("client close") { client.close }
note("round trip") do
  message = {"a" => "100%\n%25 ü", "b" => [1, :c]}
  C::Transport.deserialize_message(C::Transport.serialize_message(message)) == message
end
note("one line") { C::Transport.serialize_message("a" => "x\ny").count("\n") }
note("bad class") { C::Transport.deserialize_message("--- !ruby/object:Object {}\n") }
note("bad yaml") { C::Transport.deserialize_message("{\n") == 0 }
note("ParseError") { C::Transport::ParseError.name }
note("for_fd") do
  here, there = UNIXSocket.pair
  other = C.for_fd(there.fileno)
  there.autoclose = false
  C.new(here).send_command("command" => "x")
  received = other.receive_message
  here.close
  [received, begin
    other.receive_message
  rescue EOFError
    "EOFError"
  end]
end

Process.kill("USR2", Process.pid)
sleep 0.005 until FOUND.key?("signal")
File.write("#{ARGV[0]}.new", JSON.generate(FOUND))
File.rename("#{ARGV[0]}.new", ARGV[0])
sleep
