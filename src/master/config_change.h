// What a configuration that was read again changes, and when that can take effect.
//
// Three kinds: what the pool decides by and the log change at once; what a version of the program is
// made of (its command, environment, directory, and as whom it runs) with the next upgrade; where
// the pool's own files are and how it hands sockets on needs a restart of Einhorn. Sockets are dealt
// with apart (master/reload.cpp).
#pragma once

#include <string>
#include <vector>

#include "master/options.h"
#include "pool/config.h"
#include "wire/snapshot.h"

namespace einhorn::master {

struct ConfigChange {
  // Names of options, for the log.
  std::vector<std::string> live;
  std::vector<std::string> at_upgrade;
  std::vector<std::string> at_restart;
};

// Takes over into `config` what `read` says otherwise than `configured` did. What was changed by
// hand since stays, unless the file changed it too. Names what was taken over in `change.live`.
void merge_live(pool::Config& config, const pool::Config& configured, const pool::Config& read,
                ConfigChange& change);

// Compares the rest. With `upgrading`, takes over what belongs to a version.
void merge_rest(wire::Settings& settings, const wire::Settings& read, bool upgrading,
                ConfigChange& change);

// "number, canary"
[[nodiscard]] std::string joined(const std::vector<std::string>& names);

}  // namespace einhorn::master
