/* What a launch needs of a node, or is better with. */
#ifndef SHIFTER_PROBES_H
#define SHIFTER_PROBES_H

#include "args.h"
#include "container.h"
#include "identity.h"
#include "plan.h"

/* Makes the container of the image open on `file`, and enters it. */
typedef void container_maker(struct container *container, const char *id, const char *request,
                             int file, struct identity *who, const struct plan *plan);

struct visit {
    const struct job *job;
    container_maker *make;
};

/* Runs in a process of its own, which it may ruin: it fails where a launch would, warns of what is
   less than it could be, and prints what it has found. */
struct probe {
    const char *what;
    const char *after; /* what must work before it can be tried, or NULL */
    int needed;        /* without it no image can be run */
    void (*try)(const struct visit *visit);
};

extern const struct probe probes[];
extern const size_t probe_count;

#endif
