// The supervisor of intercepted programs: a process of its own, started and kept by the master.
//
// It answers bind and listen of every worker (desk.h), each worker on its own thread (watcher.h).
// It owns nothing: shared sockets, their forms, notify descriptors and its end of the line to the
// master are all kept by the guard, so that another one goes on when this one dies. The programs
// wait meanwhile, and what was asked but not answered is asked anew (wake_stuck). It stays while
// there is no master, and leaves when neither master nor guard is at the other end of the line.
//
// Master and supervisor speak over a pair of sequenced-packet sockets; each message is lines of
// KEY=VALUE, descriptors attached.
//
//   master to supervisor
//     SETTINGS=1, tell_all=0|1, probe=, rule=FROM=TO ...      once, first
//     SHARED=index, backlog=n, name=, backup=, used=0|1  attached: the socket of a -b, which
//                                                     programs may have already
//     FORM=index, number=n                            attached: a form that FORM has told of
//     WORKER=epoch, slot=n, again=0|1                 attached: the notify descriptor of its filter;
//                                                     again: by a new master, to whom it may be known
//     DOOR=1, secret=                                 attached: where unwatched programs ask
//     PROBE=epoch, slot=n, pid=n                      see whether it answers (probe.h)
//     DRAIN=epoch, slot=n, pid=n                      take its accepting away (drain.h)
//     SIGNALED=epoch                                  it has been told to stop
//     ENDED=epoch                                     it is gone
//     ADOPTED=1                                       programs may wait for a dead supervisor
//     SYNC=1                                          say everything again
//     LEAVE=1
//   supervisor to master
//     HELLO=1                                         it is up
//     FORM=index, number=n                            attached: to be kept
//     LISTENING=epoch, shared=index                   that worker's program serves there
//     PROBED=epoch                                    it has answered its probe
//     DRAINED=epoch                                   its connections are over, or nobody can say
//     GONE=epoch                                      nobody is under that filter any more
//     SAY=info|error, event=word, text=...            for the log
#pragma once

namespace einhorn::intercept {

// Returns the exit status for main. `control`: its end of the line.
int run_supervisor(int control);

}  // namespace einhorn::intercept
