// `/metrics`: Prometheus' text format, version 0.0.4, and OpenMetrics for those who ask for it.
//
// Every series has the label `pool`. Series of single workers carry the slot and nothing that
// grows over time (no pid, no epoch), so there are as many as there are slots.
#pragma once

#include <string>

#include "agent/fleet.h"

namespace einhorn::agent {

[[nodiscard]] std::string metrics_text(const Fleet& fleet, bool open_metrics);

}  // namespace einhorn::agent
