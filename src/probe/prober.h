// The prober: a process of its own, started by the master, that asks workers whether they are well
// (--probe, --probe-command), so that the master never speaks HTTP nor waits for anybody.
//
// It leaves when the master's end of the line is closed; the next master starts another one.
// Messages of a pair of sequenced-packet sockets, each lines of KEY=VALUE:
//
//   master to prober    PROBE=id, kind=http|tcp|command, timeout_ms=n, and
//                       address=HOST:PORT|unix:PATH, path=/health   (http, tcp)
//                       command=..., pid=n, index=n, address=...    (command: by /bin/sh -c)
//   prober to master    PROBED=id, well=0|1, detail=why not
//
// Well is: a connection (tcp); a status from 200 to 399 (http); exit status 0 (command).
#pragma once

namespace einhorn::probe {

// Returns the exit status for main. `control`: its end of the line.
int run_prober(int control);

}  // namespace einhorn::probe
