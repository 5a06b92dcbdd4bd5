/* Errors of a shared filesystem that pass, and how long they are waited for.

   The service has the same table: shifter_lite/transient.py. */
#ifndef SHIFTER_TRANSIENT_H
#define SHIFTER_TRANSIENT_H

#include <sys/stat.h>
#include <sys/types.h>

int is_transient(int error);

/* Sleep, longer each time; `waited`, in ms, begins as 0.  0 if that was long enough: then it has
   not slept. */
int transient_wait(long *waited);

/* As fstat(2), past what passes. */
int transient_fstat(int file, struct stat *status);

/* As pread(2), but all of it, unless the file ends before, and past what passes. */
ssize_t transient_pread(int file, void *bytes, size_t length, off_t position);

#endif
