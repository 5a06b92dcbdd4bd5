/* What makes a process of ours a helper: the image's server, or the keeper of a container.

   Helpers serve all ranks of a container.  So they have a name of their own, ignore what is meant
   for an application, and undo what they have inherited from the rank that started them: resource
   limits (as far as hard limits allow), scheduling, memory policy. */
#ifndef SHIFTER_HELPER_H
#define SHIFTER_HELPER_H

/* Remember where the kernel shows this process's command line; `argv` as main has it. */
void helper_begin(char **argv);

/* Be called `name`, with at most 15 bytes, in place of the caller's words: in /proc/PID/comm, and
   with `subject` behind it in /proc/PID/cmdline.  Where argv has no room for that, the first strings
   of environ are overwritten. */
void helper_name(const char *name, const char *subject);

/* Ignore all signals that can be ignored, and undo what was inherited. */
void helper_settle(void);

/* Give all signals their default actions, and block none: for a program of the node. */
void helper_reset_signals(void);

#endif
