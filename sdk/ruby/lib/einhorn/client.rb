# frozen_string_literal: true

require "set"
require "socket"
require "yaml"

module Einhorn
  # A connection to Einhorn's command socket: one message a line, in YAML.
  #
  #   client = Einhorn::Client.for_path("/tmp/einhorn.sock")
  #   client.send_command("command" => "set_workers", "args" => ["4"], "id" => 1)
  #   puts client.receive_message["message"]
  #   client.close
  class Client
    # Raised when the other side has closed the connection: EOFError. When what came is no YAML:
    # Transport::ParseError. When it is YAML of a class that is not expected: Psych::DisallowedClass.
    module Transport
      ParseError = defined?(Psych::SyntaxError) ? Psych::SyntaxError : ArgumentError

      # What a reply may hold besides texts, numbers, lists and maps.
      CLASSES = [Set, Symbol, Time].freeze

      module_function

      def send_message(socket, message)
        socket.write(serialize_message(message))
      end

      def receive_message(socket)
        deserialize_message(socket.readline)
      end

      # A message as a line: YAML in which `%` and newlines are escaped.
      def serialize_message(message)
        "#{YAML.dump(message).gsub("%", "%25").gsub("\n", "%0A")}\n"
      end

      def deserialize_message(line)
        text = line.gsub(/%(?:25|0A)/) { |escape| escape == "%25" ? "%" : "\n" }
        if Gem::Version.new(Psych::VERSION) >= Gem::Version.new("3.1.0")
          YAML.safe_load(text, permitted_classes: CLASSES, aliases: true)
        else
          YAML.safe_load(text, CLASSES, [], true)
        end
      end
    end

    # Connects to the command socket with this path.
    def self.for_path(path_to_socket)
      new(UNIXSocket.open(path_to_socket))
    end

    # Takes a descriptor that is connected already, such as EINHORN_SOCK_FD.
    def self.for_fd(fileno)
      new(UNIXSocket.for_fd(fileno))
    end

    def initialize(socket)
      @socket = socket
    end

    # Sends a command: a Hash with "command", perhaps "args" (an Array of texts) and "id".
    def send_command(command_hash)
      Transport.send_message(@socket, command_hash)
    end

    # The next reply: a Hash with "message", and "request_id" and "wait" if an "id" was sent.
    def receive_message
      Transport.receive_message(@socket)
    end

    def close
      @socket.close
    end
  end
end
