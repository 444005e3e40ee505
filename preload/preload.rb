# frozen_string_literal: true

# Einhorn's zygote for Ruby: loads code once and forks workers from it; see docs/preload.md.
#
#   preload.rb CODE SCRIPT [ARGUMENT...]

require "socket"

# In a module of its own, so that the code that is loaded finds an empty top level.
module EinhornPreload
  PRCTL = {"x86_64" => 157, "aarch64" => 167}.freeze

  class << self
    def say(lines)
      text = lines.map { |key, value| "#{key}=#{value.to_s.scrub.split.join(" ")}" }.join("\n")
      @master.send(text, 0)
    rescue SystemCallError, IOError => error
      warn("einhorn: the line to Einhorn is lost: #{error.message}")
      exit!(76)
    end

    def refuse(text)
      say("ERRNO" => 22, "STATUS" => text)
      $stderr.flush
      exit!(1)
    end

    def listeners
      Integer(ENV.fetch("EINHORN_FD_COUNT", "0")).times.map do |number|
        File.readlink("/proc/self/fd/#{ENV.fetch("EINHORN_FD_#{number}")}")
      rescue SystemCallError
        nil
      end
    end

    def load_code(path)
      # Where no gem provides it, einhorn/worker is the one that comes with Einhorn.
      $LOAD_PATH.push(File.expand_path("../ruby", __dir__))
      path.end_with?(".rb") ? require(path) : load(path)
    end

    def check(path, before)
      unless TOPLEVEL_BINDING.receiver.respond_to?(:einhorn_main, true)
        refuse("#{path} has no method einhorn_main")
      end
      refuse("the code closed a socket of -b while it was loaded") if listeners != before
      threads = Thread.list.size - 1
      return if threads.zero?

      say("STATUS" => "warning: the code started #{threads} thread(s) while it was loaded; they do " \
                      "not exist in workers")
    end

    def collect_garbage
      if Process.respond_to?(:warmup)
        Process.warmup
      else
        # An object that has lived through three collections is old, and is not written to by later
        # ones; compacting leaves few pages that are half in use.
        4.times { GC.start(full_mark: true, immediate_sweep: true) }
        begin
          GC.compact if GC.respond_to?(:compact)
        rescue NotImplementedError
          nil
        end
        3.times { GC.start(full_mark: true, immediate_sweep: true) }
      end
    end

    # In a new worker: from here on it is one.
    def be_worker(parent, order)
      sleep(0.0001) while Process.ppid == parent
      Process.setpgid(0, 0)
      srand
      ENV["EINHORN_MASTER_PID"] = Process.ppid.to_s
      ENV["LISTEN_PID"] = Process.pid.to_s if ENV["LISTEN_FDS"]
      number = order.delete("FORK")
      die_with_guard(Integer(order.delete("DEATH_SIGNAL"))) if order["DEATH_SIGNAL"]
      connect = order.delete("CONNECT")
      order.each { |key, value| ENV[key] = value }
      begin
        @master.send("FORKED=#{number}", 0)
      rescue SystemCallError
        exit!(1) # nobody knows of this process
      end
      @master.close
      return unless connect

      @command = UNIXSocket.new(connect)
      @command.close_on_exec = false
      @command.autoclose = false
      ENV["EINHORN_SOCK_FD"] = @command.fileno.to_s
    end

    def die_with_guard(signal)
      guard = Process.ppid
      number = PRCTL[RbConfig::CONFIG["host_cpu"]]
      silenced = $VERBOSE
      $VERBOSE = nil
      number ? syscall(number, 1, signal, 0, 0, 0) : nil
      $VERBOSE = silenced
      exit!(1) if Process.ppid != guard
    end

    # True in the new worker. It is a child of neither this process nor the one in between, so
    # Einhorn becomes its parent.
    def fork_twice(order)
      $stdout.flush
      $stderr.flush
      between = Process.fork
      if between.nil?
        parent = Process.pid
        begin
          exit!(0) if Process.fork
        rescue SystemCallError => error
          exit!([error.errno, 255].min)
        end
        be_worker(parent, order)
        return true
      end
      status = begin
        Process.wait2(between)[1]
      rescue Errno::ECHILD
        nil # the code ignores SIGCHLD
      end
      return false if status.nil? || status.success?

      raise SystemCallError.new("fork", status.exitstatus || Errno::EIO::Errno)
    end

    # Forks what it is asked for; returns in workers only.
    def serve
      last = 0
      loop do
        message = @master.recv(65_536)
        exit!(0) if message.nil? || message.empty?
        order = message.split("\n").map { |line| line.split("=", 2) }.select { |pair| pair[1] }.to_h
        number = order["FORK"].to_i
        next if number <= last # said again by a new master

        last = number
        begin
          return if fork_twice(order)
        rescue SystemCallError => error
          say("FAILED" => number, "ERRNO" => error.errno, "STATUS" => error.message)
        end
      end
    end

    def run(path, words)
      @master = Socket.for_fd(Integer(ENV.delete("EINHORN_ZYGOTE_FD")))
      @master.close_on_exec = true
      collect = ENV.delete("EINHORN_GC_BEFORE_FORK")
      script, *arguments = words
      ARGV.replace(arguments)
      me = Process.pid
      before = listeners
      begin
        load_code(path)
        leave_forked(path) if Process.pid != me
        check(path, before)
      rescue SystemExit => left
        leave_forked(path) if Process.pid != me
        refuse("the code called exit (#{left.status}) while it was loaded")
      rescue Exception => error # rubocop:disable Lint/RescueException
        leave_forked(path) if Process.pid != me
        warn(error.full_message(highlight: false))
        place = error.backtrace_locations&.first
        where = place && !error.is_a?(SyntaxError) ? " (#{place.path}, line #{place.lineno})" : ""
        refuse("#{error.class}: #{error.message}#{where}")
      end
      collect_garbage if collect
      say("READY" => 1)
      serve
      $0 = script || path
    end

    def leave_forked(path)
      warn("einhorn: #{path} has forked while it was loaded; this child of it ends")
      exit!(1)
    end
  end
end

EinhornPreload.run(ARGV.shift, ARGV.dup)
einhorn_main
