# frozen_string_literal: true

# For programs that `require "einhorn"`, as the whole of Ruby Einhorn is called.
require "einhorn-worker"
