/* What setupRoot and unsetupRoot have in common.  A batch daemon starts both as root, with whatever
   limits, signals and descriptors it has itself. */
#ifndef SHIFTER_PROLOGUE_H
#define SHIFTER_PROLOGUE_H

#include <limits.h>
#include <sys/types.h>

/* Undo what the daemon left to us. */
void prologue_begin(const char *program);

/* Read the uid or gid that `option` gives: decimal digits alone, and not the kernel's "no id". */
unsigned prologue_id(const char *text, int option, const char *usage);

/* Read -J's value: it becomes a part of a path. */
const char *prologue_job(const char *text, const char *usage);

/* How many milliseconds are left of the time that a batch system waits for a prologue. */
int prologue_time_left(void);

/* Take the lock of what is mounted for the user `uid`; 0 if another program of ours holds it for
   too long.  The lock ends with this process alone: its children do not hold it. */
int prologue_lock(uid_t uid);

/* Remove the lock's file, which is held, and with it the user's directory, if that is empty. */
void prologue_remove_lock(uid_t uid);

/* Open the directory of the job, which is made if it is not there; only `uid` may enter it. */
int prologue_make_place(uid_t uid, const char *job);

#endif
