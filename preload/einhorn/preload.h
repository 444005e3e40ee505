/* What code that `einhorn -p libapp.so` preloads has to define.
 *
 * The library is loaded once per version, with what its constructors do. Then einhorn_main is called
 * in each worker, which is a fork of that process: the sockets of -b are open under the numbers that
 * EINHORN_FD_0 and so on name, and argv holds the words of Einhorn's command. What it returns is the
 * worker's exit status.
 *
 * Constructors must not start threads: a fork has none of them.
 */
#ifndef EINHORN_PRELOAD_H
#define EINHORN_PRELOAD_H

#ifdef __cplusplus
extern "C" {
#endif

__attribute__((visibility("default"))) int einhorn_main(int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
