/* Modules: what a site offers to lay over images by name, and which of them a job gets. */
#ifndef SHIFTER_MODULES_H
#define SHIFTER_MODULES_H

#include "complaint.h"
#include "volumes.h"
#include "words.h"

struct module {
    const char *name;
    struct edits env;
    struct volumes fs;
    const char *copy_path;    /* or NULL */
    const char *userhook;     /* or NULL; in the container */
    const char *roothook;     /* or NULL; of the node */
    struct words conflicts;   /* names of modules */
    struct words requires;    /* what libraries the image must have */
    int disabled;
};

struct modules {
    struct module *list;
    size_t count, room;
};

/* The module `name`, made if there is none; NULL where it may not be called so. */
struct module *module_named(struct modules *modules, const char *name);

/* Which modules `names`, with commas between, are; `chosen` is from malloc, ended by NULL.
   `names` is changed; "none" or nothing chooses none. */
int modules_choose(const struct modules *modules, char *names, const struct module ***chosen,
                   struct complaint *why);

#endif
