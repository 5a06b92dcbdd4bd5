/* A name to an image, with three opens of the shared filesystem, or one if this node has asked
   before. */
#ifndef SHIFTER_RESOLVE_H
#define SHIFTER_RESOLVE_H

#include "args.h"
#include "index.h"
#include "machine.h"
#include "node.h"
#include "identity.h"
#include "record.h"
#include "reference.h"

struct resolution {
    const struct job *job;
    struct record record;
    char store[PATH_MAX];
    char key[REFERENCE_MAX];
    struct machine machine;   /* what the image is to run on */
    char path[PATH_MAX];      /* of the image */
    struct generation newest; /* `directory` is -1 if the index was not asked */
    uint64_t directory;       /* which one that is now (file_id_hash), or that of what is kept */
    int index;                /* the newest, open; or -1 */
    long waited;              /* ms, for what may pass */
};

/* Begin to look for the job's image, if it names one, in `store`. */
void resolve_begin(struct resolution *found, const struct job *job, const char *store);

/* Find what its name means. */
void resolve(struct resolution *found, const struct node *node);

/* Open the newest index. */
void resolve_index(struct resolution *found);

/* Look up the caller in the same index, for a container to be made; -1 as with resolve_open. */
int resolve_identity(struct resolution *found, struct identity *who);

/* Open the image; -1 if the filesystem gave an error that may pass: then resolve again. */
int resolve_open(struct resolution *found);

/* Close what was opened of the index. */
void resolve_end(struct resolution *found);

#endif
