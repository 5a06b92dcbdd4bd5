/* The application's environment, and who set what in it. */
#ifndef SHIFTER_ENVIRONMENT_H
#define SHIFTER_ENVIRONMENT_H

#include "args.h"
#include "config.h"
#include "record.h"

#include <stddef.h>
#include <stdint.h>

struct environment {
    char **list; /* NAME=value …, ended by NULL */
    const char **by; /* of each, who set it last */
    size_t count, room;
    uint32_t *slots; /* where a name stands in the list, plus 1, by its hash; 0: nowhere */
    size_t slot_count; /* a power of two */
};

/* What it is made of, the later over the earlier. */
struct environment_sources {
    char *const *caller;
    const struct job *job;       /* its options */
    const struct record *record; /* the image */
    const struct words *files;   /* of --env-file */
    const struct module *const *modules; /* ended by NULL */
    const struct config *config;
};

/* Put it together: the caller's, ours, the image's, those of files and of options, the modules',
   the site's. */
void environment_build(struct environment *environment, const struct environment_sources *from);

/* The application starts in `place`: let the caller's PWD say so.  If nothing was chosen, the caller's
   own name for the same directory stays. */
void environment_enter(struct environment *environment, const char *place, int is_chosen);

#endif
