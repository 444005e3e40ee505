// The reader of workers' output (--capture): a process of its own, started and kept by the master
// (master/companion.h), killed and started again without a line being lost.
//
// It owns nothing. The read ends of the workers' pipes are kept by the guard, so a worker can go on
// writing while there is no reader, up to what its pipe holds. What it reads stays in the pipe
// (tee(2)) until it has been written: a reader that is killed loses no whole line, and the next one
// may write up to a pipe's content once more. When the output does not keep up, lines wait in
// memory instead, and beyond Output::kMostWaiting they are dropped, counted, and said in the output
// and to the master: no worker waits for the output.
//
// It stays while there is no master. When neither master nor guard is there any more it stays as
// long as somebody can write to one of its pipes.
//
//   master to reader
//     SETTINGS=1, file=path, json=0|1             once, first
//     PIPES=epoch, index=, version=, pid=         attached: read ends of its stdout and its stderr
//     TAIL=epoch                                  that worker is dead: what did it say last?
//     REOPEN=1                                    its file
//     FINISH=1                                    the pool is over: write everything
//     LEAVE=1
//   reader to master
//     GONE=epoch                                  nobody can write to its pipes any more
//     TAIL=epoch, out=line, err=line ...          oldest first, at most kTailLines
//     DROPPED=n                                   lines in all
//     FAILED=text                                 for the log
//     FINISHED=1
#pragma once

namespace einhorn::capture {

inline constexpr int kTailLines = 50;

// Returns the exit status for main. `control`: its end of the line to the master.
int run_reader(int control);

}  // namespace einhorn::capture
