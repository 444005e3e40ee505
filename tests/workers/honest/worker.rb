# The same as worker.py, in Ruby: /hang, /sleep/S, /leak/M, /fork, and otherwise who it is.
require "json"
require "socket"
$LOAD_PATH.unshift(File.expand_path("../../../sdk/ruby/lib", __dir__))
require "einhorn/worker"

Worker = Einhorn::Worker
interval = ARGV.fetch(0, "0").to_i / 1000.0
stopping = false
if ARGV.include?("ignore")
  trap("USR2", "IGNORE")
else
  Worker.graceful_shutdown { stopping = true }
end
# Where it is, for --dump-signal.
trap("USR1") { warn "dump of #{Process.pid}: #{caller.join(" < ")}" }
$kept = []

def hang_for_ever
  loop { sleep 1000 }
end

def act(path)
  _, verb, argument = path.split("/")
  case verb
  when "hang" then hang_for_ever
  when "sleep" then sleep argument.to_f
  when "leak" then $kept << (Random.bytes(1024) * (1024 * argument.to_i))
  when "fork"
    fork do
      trap("USR2", "IGNORE")
      hang_for_ever
    end
  end
end

listener = Worker.listener
Worker.ack!
due = 0.0
count = 0
clock = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
until stopping
  if interval > 0 && clock.call >= due
    Worker.ping
    due = clock.call + interval
  end
  next unless IO.select([listener], nil, nil, interval > 0 ? interval : 0.2)

  begin
    stream = listener.accept_nonblock
  rescue IO::WaitReadable, Errno::ECONNABORTED
    next
  end
  begin
    words = stream.readpartial(65_536).split
    count += 1
    id = "r#{count}-#{Process.pid}"
    Worker.ping(id, busy: true)
    act(words.fetch(1))
    Worker.ping(id, busy: false)
    body = JSON.generate(pid: Process.pid, count: count)
    stream.write("HTTP/1.1 200 OK\r\nContent-Length: #{body.bytesize}\r\n" \
                 "Connection: close\r\n\r\n#{body}")
  rescue SystemCallError, EOFError
    nil
  ensure
    stream.close
  end
end
