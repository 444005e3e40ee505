# A backend of Thin that serves the socket it is given.

require 'socket'
$LOAD_PATH.unshift(File.expand_path('../../sdk/ruby/lib', __dir__)) # not needed once the gem is installed
require 'einhorn-worker'

class EinhornBackend < Thin::Backends::Base
  def initialize(*)
    super()
  end

  def connect
    @socket = Socket.for_fd(Einhorn::Worker.socket!)
    @signature = EventMachine.attach_server(@socket, Thin::Connection, &method(:initialize_connection))
    Einhorn::Worker.ack
  end

  def disconnect
    EventMachine.stop_server(@signature)
  end

  def to_s
    'the socket of Einhorn'
  end
end
