# A backend of Thin that serves the socket it is given.

require 'socket'
$LOAD_PATH.unshift(File.expand_path('../../sdk/ruby/lib', __dir__)) # not needed once the gem is installed
require 'einhorn-worker'

# The last answer of a connection says that it is: a client that keeps connections sends no more.
class EinhornConnection < Thin::Connection
  def pre_process
    @request.env['HTTP_CONNECTION'] = 'close' if @backend.stopping?
    super
  end
end

class EinhornBackend < Thin::Backends::Base
  IDLE = 1 # seconds

  def initialize(*)
    super()
  end

  def connect
    @socket = Socket.for_fd(Einhorn::Worker.socket!)
    @signature = EventMachine.attach_server(@socket, EinhornConnection, &method(:initialize_connection))
    Einhorn::Worker.ack
  end

  def disconnect
    EventMachine.stop_server(@signature)
  end

  # Thin would close connections that are idle at once, under a request that is on its way.
  def stop
    @running = false
    @stopping = true
    disconnect
    return stop! if @connections.empty?

    EventMachine.add_timer(IDLE) do
      @connections.each_value { |connection| connection.close_connection if connection.idle? }
    end
  end

  def stopping?
    @stopping
  end

  def to_s
    'the socket of Einhorn'
  end
end
