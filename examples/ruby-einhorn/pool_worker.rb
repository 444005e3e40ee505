#!/usr/bin/env ruby
# frozen_string_literal: true

# The smallest worker that can be preloaded: it has no socket, and says what it does.
#
#   einhorn -n 2 -p ./pool_worker.rb -- ./pool_worker.rb

$stdout.sync = true
puts "#{Process.pid} loads #{File.basename(__FILE__)}"

def einhorn_main
  1.step do |round|
    puts "#{Process.pid} works, round #{round}"
    sleep(1)
  end
end

einhorn_main if $PROGRAM_NAME == __FILE__
