# A master that behaves as Ruby's Einhorn does where it meets ours: it hands its pool over at an
# upgrade, and takes one over with --with-state-fd. Written from docs/migrating.md and the protocol;
# for tests only, so it knows no back-off, no preloading and few commands.
#
#   ruby master.rb [-n N] [-b ADDR:PORT[,r][,n]]... [-c NAME] [-d PATH] [-e PIDFILE] [-f LOCKFILE]
#                  [-g] [-k] [-m manual|SECONDS] [--max-unacked N] [--reexec-as CMDLINE] COMMAND...

require "optparse"
require "set"
require "shellwords"
require "socket"
require "tmpdir"
require "yaml"

KINDS = [Set, Symbol, Time].freeze

# One line of the command protocol.
module Line
  def self.encode(document)
    YAML.dump(document).gsub("%", "%25").gsub("\n", "%0A") + "\n"
  end

  def self.decode(line)
    YAML.safe_load(line.gsub("%0A", "\n").gsub("%25", "%"), permitted_classes: KINDS, aliases: true)
  end
end

# A client of the command socket.
class Client
  attr_reader :socket, :subscriptions
  attr_accessor :unread, :unsent

  def initialize(socket, unread: "", unsent: "", subscriptions: {})
    @socket = socket
    @unread = +unread
    @unsent = +unsent
    @subscriptions = subscriptions
  end

  def say(text, id, last)
    reply = {"message" => text}
    reply["request_id"] = id if id
    reply["wait"] = true if id && !last
    @unsent << Line.encode(reply)
    flush
  end

  def flush
    @unsent = @unsent.byteslice(@socket.write_nonblock(@unsent)..) until @unsent.empty?
  rescue IO::WaitWritable, Errno::EPIPE
    nil
  end

  def to_state
    state = {class: "Einhorn::Event::Connection", socket: @socket.fileno}
    state[:read_buffer] = @unread unless @unread.empty?
    state[:write_buffer] = @unsent unless @unsent.empty?
    state.merge(subscriptions: @subscriptions)
  end
end

class Master
  DEFAULTS = {
    children: {}, config: {number: 1, backlog: 100, seconds: 1}, versions: {}, version: 0, sockets: {},
    orig_cmd: nil, bind: [], bind_fds: [], bound_ports: [], cmd: nil, script_name: nil, respawn: true,
    upgrading: false, smooth_upgrade: false, reloading_for_upgrade: false, path: nil, cmd_name: nil,
    verbosity: 1, generation: 0, last_spinup: nil, ack_mode: {type: :timer, timeout: 1},
    kill_children_on_exit: false, command_socket_as_fd: false, socket_path: nil, pidfile: nil,
    lockfile: nil, consecutive_deaths_before_ack: 0, last_upgraded: nil,
    nice: {master: nil, worker: nil, renice_cmd: "/usr/bin/renice"}, reexec_commandline: nil,
    drop_environment_variables: [], signal_timeout: nil, preloaded: false
  }.freeze

  attr_reader :state

  def initialize
    @state = DEFAULTS.transform_values { |value| value.frozen? ? value : value.dup }
    @environment = ENV.to_h
    @clients = []
    @timers = [] # [seconds, since, pid]
    @signals = []
    @listeners = []
    @wake_reader, @wake_writer = IO.pipe
  end

  def run(command)
    install_signals
    start(command) unless @server
    $0 = "einhorn: #{@state[:cmd_name] ? "ruby #{@state[:cmd_name]}" : @state[:orig_cmd].join(" ")}"
    continue_upgrade if @state[:reloading_for_upgrade]
    turn while @state[:respawn] || !@state[:children].empty?
    remove_files
  end

  # --- taking over ---------------------------------------------------------------------------------

  def restore(text)
    handed = YAML.safe_load(text, permitted_classes: KINDS, aliases: true)
    old = handed[:state]
    unknown = old.keys - DEFAULTS.keys
    log("INFO", "not known here: #{unknown.inspect}") unless unknown.empty?
    @state = DEFAULTS.merge(old.slice(*DEFAULTS.keys))
    bury_the_dead
    handed[:persistent_descriptors].each { |descriptor| restore_descriptor(descriptor) }
  end

  def bury_the_dead
    @state[:children].keys.each do |pid|
      forget(pid) if Process.wait(pid, Process::WNOHANG)
    rescue Errno::ECHILD
      forget(pid)
    end
  end

  def restore_descriptor(from)
    case from[:class]
    when "Einhorn::Event::CommandServer"
      @server = UNIXServer.for_fd(from[:server])
    when "Einhorn::Event::Connection"
      @clients << Client.new(Socket.for_fd(from[:socket]), unread: from[:read_buffer] || "",
        unsent: from[:write_buffer] || "", subscriptions: from[:subscriptions] || {})
    when "Einhorn::Event::ACKTimer"
      @timers << [from[:time], from[:start], from[:pid]]
    else
      log("ERROR", "no such class: #{from[:class]}")
    end
  end

  # --- handing over --------------------------------------------------------------------------------

  def command_line(*flags)
    [*(@state[:reexec_commandline] || [RbConfig.ruby, __FILE__]), *flags, "--", *@state[:cmd]]
  end

  def reload
    log("INFO", "Reloading einhorn master...", :upgrade)
    reader, writer = IO.pipe
    fork { pass_state(reader, writer) }
    writer.close
    environment = @environment.reject { |name, _| @state[:drop_environment_variables].include?(name) }
    check = spawn(environment, *command_line("--upgrade-check"), unsetenv_others: true)
    Process.wait(check)
    unless $?.success?
      log("ERROR", "Can not initiate einhorn master reload safely, aborting", :upgrade)
      @state[:reloading_for_upgrade] = false
      return reader.close
    end
    [reader, @server, *@clients.map(&:socket)].each { |io| io.close_on_exec = false }
    words = command_line("--with-state-fd", reader.fileno.to_s)
    log("INFO", "About to re-exec einhorn master as #{words.inspect}", :upgrade)
    exec(environment, [words[0], words[0]], *words[1..], unsetenv_others: true, close_others: false)
  end

  # In a child of its own: the pipe may be too small for the state.
  def pass_state(reader, writer)
    reader.close
    @state[:children][Process.pid] = {type: :state_passer}
    @state[:generation] += 1
    timers = @timers.map do |seconds, since, pid|
      {class: "Einhorn::Event::ACKTimer", time: seconds, start: since, pid: pid}
    end
    servers = [{class: "Einhorn::Event::CommandServer", server: @server.fileno}]
    servers.clear if ENV["STAND_IN_HIDES_ITS_SOCKET"]  # for a test: nobody could take this over
    writer.write(YAML.dump({state: @state,
                            persistent_descriptors: [*servers, *@clients.map(&:to_state), *timers]}))
    exit!(0)
  end

  # --- the pool ------------------------------------------------------------------------------------

  def start(command)
    @state[:orig_cmd] = command
    @state[:cmd] = command.dup
    @server = UNIXServer.new(socket_path)
    File.write(pidfile, Process.pid)
    File.write(lockfile, "")
    @state[:bind].each do |host, port, flags|
      listener = Socket.new(:INET, :STREAM)
      listener.setsockopt(:SOCKET, :REUSEADDR, true) if flags.include?("r")
      listener.bind(Addrinfo.tcp(host, port))
      listener.listen(@state[:config][:backlog])
      listener.close_on_exec = false
      @listeners << listener
      @state[:bind_fds] << listener.fileno
      @state[:bound_ports] << listener.local_address.ip_port
    end
  end

  def workers
    @state[:children].select { |_, child| child[:type] == :worker }
  end

  def current
    workers.select { |_, child| child[:version] == @state[:version] && child[:signaled].empty? }
  end

  def continue_upgrade
    bumped = @state[:upgrading]
    kind = @state[:smooth_upgrade] ? "smooth" : "fleet"
    log("INFO", bumped ? "Currently upgrading (bumping version and starting over)..."
                       : "Starting #{kind} upgrade from version #{@state[:version]}...", :upgrade)
    @state.merge!(upgrading: true, reloading_for_upgrade: false, last_upgraded: Time.now,
      version: @state[:version] + 1)
  end

  def turn
    reap
    replenish if @state[:respawn]
    cull
    clients = @clients.map(&:socket)
    waiting = @clients.reject { |client| client.unsent.empty? }.map(&:socket)
    ready, = IO.select([@wake_reader, @server, *clients], waiting, nil, 0.05)
    (ready || []).each { |io| on_ready(io) }
    @clients.each(&:flush)
    handle_signals
    ring_timers
  end

  def replenish
    most = @state[:config][:max_unacked] || 4
    most = @state[:config][:number] if @state[:last_spinup].nil? || !@state[:smooth_upgrade]
    while current.size < @state[:config][:number] && current.count { |_, c| !c[:acked] } < most
      spin_up
    end
  end

  def spin_up
    used = workers.values.map { |child| child[:index] }
    index = (0..).find { |candidate| !used.include?(candidate) }
    master = Process.pid
    pid = fork do
      Process.setpgrp
      @signals_installed.each { |name| Signal.trap(name, "DEFAULT") }
      ENV["EINHORN_MASTER_PID"] = master.to_s
      ENV["EINHORN_SOCK_PATH"] = socket_path
      ENV["EINHORN_CHILD_INDEX"] = index.to_s
      ENV["EINHORN_FD_COUNT"] = @state[:bind_fds].size.to_s
      @state[:bind_fds].each_with_index { |fd, at| ENV["EINHORN_FD_#{at}"] = fd.to_s }
      exec([@state[:cmd][0], @state[:cmd][0]], *@state[:cmd][1..], close_others: false)
    end
    now = Time.now
    @state[:last_spinup] = now
    @state[:children][pid] = {type: :worker, version: @state[:version], acked: false,
                              signaled: Set.new, last_signaled_at: nil, index: index, spinup_time: now}
    mode = @state[:ack_mode]
    @timers << [mode[:timeout], now, pid] if mode[:type] == :timer
    log("INFO", "===> Launched #{pid} (index: #{index})", :upgrade)
  end

  def cull
    number = @state[:config][:number]
    acked = current.count { |_, child| child[:acked] }
    old = workers.select { |_, child| child[:version] < @state[:version] && child[:signaled].empty? }
    if @state[:upgrading] && acked >= number
      @state[:upgrading] = false
      log("INFO", "Upgraded successfully to version #{@state[:version]} (Einhorn 1.1.1).", :upgrade)
      tell(:upgrade, "Upgrade done", true)
    end
    excess = @state[:upgrading] ? (@state[:smooth_upgrade] ? old.size + acked - number : 0) : old.size
    signal("USR2", old.keys.take(excess)) if excess > 0 && !old.empty?
    signal("USR2", current.keys.take(current.size - number)) if current.size > number
  end

  def signal(name, pids)
    log("INFO", "Sending #{name} to #{pids.inspect}", :upgrade)
    pids.each do |pid|
      @state[:children][pid][:signaled].add(name)
      @state[:children][pid][:last_signaled_at] = Time.now
      Process.kill(name, pid)
    rescue Errno::ESRCH
      nil
    end
  end

  def ack(pid, how)
    child = @state[:children][pid]
    return if child.nil? || child[:acked]
    child[:acked] = true
    log("INFO", how)
  end

  def ring_timers
    due, @timers = @timers.partition { |seconds, since, _| since + seconds <= Time.now }
    due.each { |seconds, _, pid| ack(pid, "Worker #{pid} has been up for #{seconds}s, so it is alive.") }
  end

  def reap
    while (pid = Process.wait(-1, Process::WNOHANG))
      forget(pid)
    end
  rescue Errno::ECHILD
    nil
  end

  def forget(pid)
    child = @state[:children].delete(pid)
    log("INFO", "===> Exited worker #{pid}", :upgrade) if child && child[:type] == :worker
  end

  # --- commands and signals ------------------------------------------------------------------------

  def on_ready(io)
    if io == @wake_reader
      io.read_nonblock(4096)
    elsif io == @server
      @clients << Client.new(@server.accept_nonblock)
    else
      serve(@clients.find { |client| client.socket == io })
    end
  rescue IO::WaitReadable
    nil
  end

  def serve(client)
    client.unread << client.socket.read_nonblock(65_536)
    while (line = client.unread.slice!(/\A[^\n]*\n/))
      execute(client, Line.decode(line.chomp))
    end
  rescue IO::WaitReadable
    nil
  rescue EOFError, IOError, SystemCallError
    leave(client)
  end

  def leave(client)
    client.socket.close unless client.socket.closed?
    @clients.delete(client)
  end

  def execute(client, request)
    id = request["id"]
    case request["command"]
    when "worker:ack"
      leave(client)
      ack(request["pid"], "Received a manual ACK from #{request["pid"]}")
    when "worker:ping"
      leave(client)
    when "state"
      client.say(YAML.dump({state: @state}), id, true)
    when "ehlo"
      client.say("Welcome! You are speaking to Einhorn Master Process #{Process.pid}.", id, true)
    when "set_workers"
      @state[:config][:number] = request["args"][0].to_i
      client.say("", id, true)
    when "reload"
      client.say("Reloading, as commanded", id, true)
      reload
    when "upgrade", "upgrade_fleet"
      upgrade(client, id, request["command"] == "upgrade")
    else
      client.say("Unrecognized command: #{request["command"].inspect}", id, true)
    end
  end

  def upgrade(client, id, smooth)
    @state.merge!(smooth_upgrade: smooth, reloading_for_upgrade: true)
    client&.say("Upgrading #{smooth ? "smoothly" : "fleet"}, as commanded", id, false)
    client.subscriptions[:upgrade] = id if client && id
    reload
  end

  def tell(tag, text, last)
    @clients.each do |client|
      next unless (id = client.subscriptions[tag])
      client.say(text, id, last)
      client.subscriptions.delete(tag) if last
    end
  end

  def install_signals
    @signals_installed = %w[INT TERM QUIT HUP USR2 CHLD]
    @signals_installed.each do |name|
      Signal.trap(name) do
        @signals << name
        @wake_writer.write_nonblock("x")
      rescue IO::WaitWritable
        nil
      end
    end
  end

  def handle_signals
    while (name = @signals.shift)
      case name
      when "HUP"
        upgrade(nil, nil, true)
      when "INT", "USR2", "TERM", "QUIT"
        signal(name == "INT" ? "USR2" : name, workers.keys)
        @state[:respawn] = false
      end
    end
  end

  # --- files ---------------------------------------------------------------------------------------

  def default_path(kind)
    File.join(Dir.tmpdir, ["einhorn", @state[:cmd_name]].compact.join("-") + ".#{kind}")
  end

  def socket_path = @state[:socket_path] || default_path("sock")

  def pidfile = @state[:pidfile] || default_path("pid")

  def lockfile = @state[:lockfile] || default_path("lock")

  def remove_files
    [socket_path, pidfile].each { |path| File.unlink(path) if File.exist?(path) }
  end

  def log(level, text, tag = nil)
    return if level == "INFO" && @state[:verbosity] > 1
    warn("[MASTER #{Process.pid}] #{level}: #{text}")
    tell(tag, text, false) if tag
  end
end

def parse(master)
  state = master.state
  OptionParser.new do |options|
    options.on("-n N", Integer) { |number| state[:config][:number] = number }
    options.on("-b ADDR") do |text|
      host, port, *flags = text.sub(":", ",").split(",")
      state[:bind] << [host, Integer(port), flags.map(&:downcase)]
    end
    options.on("-c NAME") { |name| state[:cmd_name] = name }
    options.on("-d PATH") { |path| state[:socket_path] = path }
    options.on("-e PATH") { |path| state[:pidfile] = path }
    options.on("-f PATH") { |path| state[:lockfile] = path }
    options.on("-g") { state[:command_socket_as_fd] = true }
    options.on("-k") { state[:kill_children_on_exit] = true }
    options.on("-q") { state[:verbosity] += 1 }
    options.on("-m MODE") do |mode|
      state[:ack_mode] = mode == "manual" ? {type: :manual} : {type: :timer, timeout: Float(mode)}
    end
    options.on("--max-unacked N", Integer) { |number| state[:config][:max_unacked] = number }
    options.on("--reexec-as CMDLINE") { |line| state[:reexec_commandline] = Shellwords.split(line) }
    options.on("--drop-env-var NAME") { |name| state[:drop_environment_variables] << name }
    options.on("--upgrade-check") { exit(0) }
    options.on("--with-state-fd FD", Integer) do |fd|
      master.restore(IO.for_fd(fd).then { |io| io.read.tap { io.close } })
    end
  end.order!
end

master = Master.new
parse(master)
abort("a command is needed") if ARGV.empty?
master.run(ARGV.dup)
