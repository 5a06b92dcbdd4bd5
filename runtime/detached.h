/* Processes of ours beside the application: the server of an image, the keeper of a container.
   They hold nothing of the caller's: no file, directory, session or umask (and see helper.h). */
#ifndef SHIFTER_DETACHED_H
#define SHIFTER_DETACHED_H

#include <stddef.h>
#include <sys/types.h>

/* fork(2) without a signal at the child's end, for what is waited for with wait_for_child: a
   SIGCHLD that the caller has blocked would stay pending until the application unblocks it. */
pid_t fork_silently(void);

/* Fail with `fact`: there is no further process, and that is why. */
_Noreturn void fail_to_fork(int error, const char *fact);

/* Wait for the end of such a child; fails with `fact` if its exit status, an errno, is not 0. */
void wait_for_child(pid_t child, const char *fact);

/* Leave all of the caller's behind.  The `count` descriptors `wanted` become 3, 4, and so on (a
   negative one leaves its number closed), `errors` becomes the standard error; all others are
   closed, and standard input and output are /dev/null. */
void detach(const int *wanted, size_t count, int errors);

/* Write one byte into a pipe whose reader may be dead, which must not kill us, too. */
void send_byte(int pipe, char byte);

/* Close all that this process has opened itself: a directory of the host's that is open leads to
   the host's root. */
void close_ours(void);

#endif
