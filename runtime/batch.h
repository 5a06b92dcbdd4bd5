/* Which job the caller belongs to: its server and keeper die with it. */
#ifndef SHIFTER_BATCH_H
#define SHIFTER_BATCH_H

#include <stdio.h>

/* Write what tells the caller's job and step from all others; nothing if there is none. */
void batch_write(FILE *out);

/* What the batch system calls the caller's job, or NULL. */
const char *batch_job(void);

/* Whether ranks of one step of a job are started together, by something that tells us so. */
int batch_is_step(void);

#endif
