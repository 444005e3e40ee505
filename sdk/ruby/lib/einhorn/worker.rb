# frozen_string_literal: true

require "einhorn/client"
require "socket"

module Einhorn
  # What a worker of Einhorn needs: its sockets, saying that it is ready, leaving when asked to.
  #
  #   Einhorn::Worker.on_stop                              # USR2 means: finish and leave
  #   listener = Einhorn::Worker.listener("web")           # or listener(0)
  #   Einhorn::Worker.ack
  #   Einhorn::Worker.connections(listener) { |connection| serve(connection) }
  #
  # Everything of Ruby Einhorn's Einhorn::Worker is here with the same arguments, results and
  # exceptions; listener, names, connections, on_stop, stopping?, notify and status are new.
  module Worker
    # This process is no worker; the message says why.
    class WorkerError < RuntimeError; end

    # --- who am I ---------------------------------------------------------------------------------

    # Does Einhorn run this process? True if EINHORN_MASTER_PID names its parent.
    def self.is_worker?
      ensure_worker!
    rescue WorkerError
      false
    end

    # True, or WorkerError.
    def self.ensure_worker!
      master = ENV["EINHORN_MASTER_PID"]
      if master.nil?
        raise WorkerError, "not a worker of Einhorn: EINHORN_MASTER_PID is not set"
      end
      return true if master.to_i == Process.ppid

      raise WorkerError, "not a worker of Einhorn: EINHORN_MASTER_PID is #{master}, " \
                         "but the parent is #{Process.ppid}"
    end

    # This worker's index as an Integer, unique among living workers; nil outside Einhorn.
    def self.einhorn_child_index
      index = ENV["EINHORN_CHILD_INDEX"]
      /\A\d+\z/.match?(index.to_s) ? index.to_i : index
    end

    # --- telling Einhorn --------------------------------------------------------------------------

    # As ack!, but nil outside Einhorn.
    def self.ack(*args)
      ack!(*args)
    rescue WorkerError
      nil
    end

    # Says "I am ready" (einhorn -m manual). True, or WorkerError outside Einhorn.
    #
    # discovery:
    #   :env     the command socket is EINHORN_SOCK_PATH
    #   :direct  it is `arg`
    #   :fd      EINHORN_SOCK_FD is connected to it (einhorn -g), which is good for one message;
    #            closed afterwards unless `arg` is true
    #   :notify  READY=1 to NOTIFY_SOCKET, for einhorn -m notify
    def self.ack!(discovery = :env, arg = nil)
      if discovery == :notify
        ensure_worker!
        return notify("READY=1") || raise("NOTIFY_SOCKET is not set")
      end
      tell(discovery, arg, "command" => "worker:ack", "pid" => Process.pid)
    end

    # Says "I am alive", and which request this worker is at; busy: and status: may say more.
    # True, or WorkerError outside Einhorn. discovery and arg as for ack!, without :notify.
    def self.ping!(request_id, discovery = :env, arg = nil, busy: nil, status: nil)
      told = {"command" => "worker:ping", "pid" => Process.pid, "request_id" => request_id}
      told["busy"] = busy unless busy.nil?
      told["status"] = status unless status.nil?
      tell(discovery, arg, told)
    end

    # As ping!, but nil outside Einhorn.
    def self.ping(request_id = nil, *args, **told)
      ping!(request_id, *args, **told)
    rescue WorkerError
      nil
    end

    # Sends assignments as sd_notify(3) does ("READY=1", "WATCHDOG=1"). False without NOTIFY_SOCKET.
    def self.notify(assignments)
      path = ENV["NOTIFY_SOCKET"].to_s
      return false if path.empty?

      Socket.open(:UNIX, :DGRAM) do |sender|
        sender.send(assignments, 0, Socket.sockaddr_un(path.sub(/\A@/, "\0")))
      end
      true
    end

    # A line about this worker, shown by `einhornsh -e status`. False without NOTIFY_SOCKET.
    def self.status(text)
      notify("STATUS=#{text.tr("\n", " ")}")
    end

    # --- sockets ----------------------------------------------------------------------------------

    # The descriptor's number (Integer) of a socket, by number or name; nil if there is none.
    def self.socket(which = nil)
      einhorn_fd(number_of(which || 0))
    end

    # As socket, but raises RuntimeError if there is none.
    def self.socket!(which = nil)
      number = number_of(which || 0)
      if number.nil?
        raise "there is no socket named \"#{which}\"; there are: " \
              "#{names.empty? ? "none" : names.join(":")}"
      end
      count = einhorn_fd_count
      unless number < count
        raise "there is no socket #{number}: #{count} were handed in (einhorn -b)"
      end
      einhorn_fd(number) || raise("EINHORN_FD_#{number} is not set, or is no number")
    end

    # EINHORN_FD_n as an Integer, nil if it is not set.
    def self.einhorn_fd(number)
      return nil if number.nil?
      return 3 + number if ENV["EINHORN_FD_COUNT"].nil? && number.between?(0, listen_fds - 1)

      raw = ENV["EINHORN_FD_#{number}"]
      raw && Integer(raw)
    end

    # How many sockets were handed in.
    def self.einhorn_fd_count
      raw = ENV["EINHORN_FD_COUNT"]
      raw ? Integer(raw) : listen_fds
    end

    # The sockets' names (-b ADDR,name=NAME) in the order of -b; "unknown" where none was given.
    def self.names
      ENV["LISTEN_FDNAMES"].to_s.split(":").first(einhorn_fd_count)
    end

    # The socket itself, as a TCPServer, UNIXServer or UDPSocket. Programs that this one starts do
    # not inherit it. Ruby makes it non-blocking, for all its users.
    def self.listener(which = nil)
      fd = socket!(which)
      begin
        address = Socket.for_fd(fd).tap { |socket| socket.autoclose = false }.local_address
      rescue SystemCallError => error
        raise "socket #{which || 0}: descriptor #{fd} is no open socket: #{error.message}"
      end
      kind = address.unix? ? UNIXServer : TCPServer
      kind = UDPSocket if address.socktype == Socket::SOCK_DGRAM
      kind.for_fd(fd).tap { |socket| socket.close_on_exec = true }
    end

    # --- leaving ----------------------------------------------------------------------------------

    # The block is called when a graceful stop is asked for, with the signal's number.
    def self.graceful_shutdown(&block)
      Signal.trap("USR2", &block)
    end

    @stopping = false

    # From now on these signals (USR2 if none is named) ask for a graceful stop: stopping? is true,
    # connections ends, and the block, if there is one, is called. It runs as a signal handler.
    def self.on_stop(*signals)
      own_stop_pipe
      signals = ["USR2"] if signals.empty?
      signals.each do |name|
        Signal.trap(name) do
          @stopping = true
          # In a forked child it is the parent's, which was told nothing.
          @stop_writer.write_nonblock("x", exception: false) if @stop_owner == Process.pid
          yield if block_given?
        end
      end
    end

    # Was a stop asked for?
    def self.stopping?
      @stopping
    end

    # Yields the connections of a listener one after the other, until a stop is asked for.
    def self.connections(listener)
      own_stop_pipe unless @stop_reader.nil?
      until @stopping
        IO.select([listener, @stop_reader].compact)
        break if @stopping

        connection = begin
          listener.accept_nonblock(exception: false)
        rescue Errno::ECONNABORTED
          :wait_readable
        end
        yield connection unless connection == :wait_readable # another worker got it
      end
    end

    class << self
      private

      # A signal may come between a look at a flag and a wait; a byte in a pipe can't be missed.
      def own_stop_pipe
        return if @stop_owner == Process.pid

        @stop_reader, @stop_writer = IO.pipe
        @stop_owner = Process.pid
      end

      def tell(discovery, arg, message)
        ensure_worker!
        client = client_for(discovery, arg)
        client.send_command(message)
        client.close unless discovery == :fd && arg
        true
      end

      def client_for(discovery, arg)
        case discovery
        when :env then Client.for_path(ENV["EINHORN_SOCK_PATH"])
        when :direct then Client.for_path(arg)
        when :fd
          fd = ENV["EINHORN_SOCK_FD"]
          raise "EINHORN_SOCK_FD is not set (einhorn -g sets it)" if fd.nil?

          Client.for_fd(Integer(fd))
        else
          raise "discovery is :env, :fd or :direct, not #{discovery.inspect}"
        end
      end

      # systemd's variables count only for the process they were made for.
      def listen_fds
        ENV["LISTEN_PID"] == Process.pid.to_s ? ENV["LISTEN_FDS"].to_i : 0
      end

      def number_of(which)
        which.is_a?(String) || which.is_a?(Symbol) ? names.index(which.to_s) : which
      end
    end
  end
end
