# frozen_string_literal: true

require "einhorn/client"
require "einhorn/worker"
