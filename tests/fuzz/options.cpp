// The command line: words with a zero byte or a newline between them.
#include "master/options.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "fuzz.h"
#include "wire/snapshot.h"

namespace einhorn::fuzz {
namespace {

using master::Options;

constexpr Duration kMost = std::chrono::seconds{1'000'000'000};

std::vector<std::string> words_of(std::string_view input) {
  std::vector<std::string> words;
  while (!input.empty()) {
    const std::size_t end =
        std::min(input.find_first_of(std::string_view("\0\n", 2)), input.size());
    words.emplace_back(input.substr(0, end));
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  return words;
}

void holds_in_range(const Options& options) {
  const auto in_range = [](Duration duration) {
    return duration >= Duration::zero() && duration <= kMost;
  };
  const pool::Config& config = options.config;
  holds(config.number >= 1 && config.number <= limits::kMaxWorkers, "number");
  holds(config.max_unacked <= limits::kMaxWorkers, "max-unacked");
  holds(config.canary <= limits::kMaxWorkers, "canary");
  holds(config.stop_signal >= 1 && config.stop_signal <= 64, "stop-signal");
  holds(
      in_range(config.ack_delay) && in_range(config.ack_timeout) && in_range(config.canary_seconds),
      "seconds");
  for (const auto& seconds :
       {config.seconds, config.signal_timeout, config.drain_timeout, config.upgrade_timeout}) {
    holds(!seconds || (in_range(*seconds) && *seconds > Duration::zero()), "seconds");
  }
  holds(options.settings.socket_mode <= 0777, "socket-mode");
  holds(options.settings.verbosity >= 0 && options.settings.verbosity <= 2, "verbosity");
  for (const auto& nice : {options.settings.nice_master, options.settings.nice_worker}) {
    holds(!nice || (*nice >= -20 && *nice <= 19), "nice");
  }
  holds(options.binds.size() <= limits::kMaxListeners, "binds");
  holds(options.settings.name.find('/') == std::string::npos, "the name is part of a file name");
}

}  // namespace

void run(std::string_view input) {
  const std::vector<std::string> words = words_of(input);
  const Result<Options> options = master::parse_options(words);
  if (!options) {
    holds_for_people(options.error().message());
    return;
  }
  holds_in_range(*options);
  // Where there is no command, what is preloaded names the workers.
  const bool preloads =
      !options->settings.preload.empty() || !options->settings.preload_command.empty();
  if (!preloads || options->command.size() > 1) {
    holds(options->command.size() <= words.size(), "the command is part of the words");
    holds(std::equal(options->command.rbegin(), options->command.rend(), words.rbegin()),
          "the command is the last of the words");
  }
  // And all of it goes into the snapshot and comes back.
  wire::Snapshot snapshot;
  snapshot.settings = options->settings;
  snapshot.config = options->config;
  const std::string journal = wire::encode_journal(snapshot);
  const Result<wire::Snapshot> read =
      wire::decode_snapshot(std::string(wire::kJournalStart, '\0') + journal);
  holds(read.has_value() && read->damage.empty(), "the settings can be read from the snapshot");
  holds(wire::encode_journal(*read) == journal, "the settings read back as the same");
}

}  // namespace einhorn::fuzz
