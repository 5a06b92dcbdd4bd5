/* The application's environment, and who set what in it. */
#ifndef SHIFTER_ENVIRONMENT_H
#define SHIFTER_ENVIRONMENT_H

#include "args.h"
#include "config.h"
#include "record.h"

#include <stddef.h>

struct environment {
    char **list; /* NAME=value …, ended by NULL */
    const char **by; /* of each, who set it last */
    size_t count, room;
};

/* Put it together, the later over the earlier: the caller's, ours, the image's, those of files and
   of options, the modules', the site's.  `modules` ends with NULL. */
void environment_build(struct environment *environment, const struct job *job,
                       const struct record *record, const struct module *const *modules,
                       const struct config *config, char *const *caller);

#endif
