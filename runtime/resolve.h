/* A name to an open image, before any namespace, with three opens of the shared filesystem. */
#ifndef SHIFTER_RESOLVE_H
#define SHIFTER_RESOLVE_H

#include "args.h"
#include "identity.h"
#include "record.h"

/* Find the job's image in the newest index and open it, and what the index says of the caller;
   returns the image's descriptor. */
int resolve(const struct job *job, struct record *record, struct identity *who);

#endif
