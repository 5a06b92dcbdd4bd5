/* A name to an open image, before any namespace, with three opens of the shared filesystem. */
#ifndef SHIFTER_RESOLVE_H
#define SHIFTER_RESOLVE_H

#include "args.h"
#include "record.h"

/* Find the job's image in the newest index of `store` and open it; returns its descriptor. */
int resolve(const struct job *job, const char *store, struct record *record);

#endif
