# Unicorn's configuration: says that it is up when it catches its signals and is about to fork.

$LOAD_PATH.unshift(File.expand_path('../../sdk/ruby/lib', __dir__)) # not needed once the gem is installed
require 'einhorn-worker'

before_fork { |_server, _worker| Einhorn::Worker.ack }
