// As whom workers and master run: from what the options say to numbers that the kernel takes.
#pragma once

#include "base/ids.h"
#include "base/result.h"
#include "master/options.h"
#include "os/identity.h"
#include "wire/snapshot.h"

namespace einhorn::master {

// Looks up users, groups and CPUs, checks that we have the right to all of it, and notes it in
// `options.settings.privileges`. Workers of another user can open the command socket afterwards,
// unless its mode or group was given. Errors: one line that names the option.
[[nodiscard]] Status resolve_privileges(Options& options);

// What that worker's process takes on.
[[nodiscard]] os::Identity worker_identity(const wire::Privileges& privileges, Slot slot);

// What a master takes on that the guard starts; an empty one without --master-user.
[[nodiscard]] os::Identity master_identity(const wire::Privileges& privileges);

// Capabilities that the guard goes on with; none: all, as it is.
[[nodiscard]] std::optional<std::uint64_t> guard_capabilities(const wire::Privileges& privileges);

// Variables that say who a worker is, as NAME=VALUE; none where it is who we are.
[[nodiscard]] std::vector<std::string> identity_variables(const wire::Privileges& privileges);

}  // namespace einhorn::master
