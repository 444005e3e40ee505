# frozen_string_literal: true

Gem::Specification.new do |gem|
  gem.name = "einhorn-worker"
  gem.version = "0.1.0"
  gem.summary = "What a worker of Einhorn needs: its sockets, ACK, ping, graceful stop"
  gem.description = "Einhorn::Worker and Einhorn::Client with the interface of Ruby Einhorn, " \
                    "without the rest of it. Standard library only."
  gem.authors = ["The Einhorn authors"]
  gem.license = "MIT"
  gem.required_ruby_version = ">= 2.5"
  gem.files = Dir["lib/**/*.rb"] + ["README.md"]
end
