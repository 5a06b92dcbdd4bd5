/* udiRoot.conf, as Shifter's sites have it (docs/udiRoot.conf.md). */
#ifndef SHIFTER_CONFIG_H
#define SHIFTER_CONFIG_H

#include "complaint.h"
#include "keys.h"
#include "modules.h"
#include "volumes.h"
#include "words.h"

#include <stdint.h>
#include <stdio.h>

struct config {
    const char *path;   /* of the file, or NULL: there is none */
    uint64_t text_hash; /* FNV-1a of its bytes; 0: there is none */
    FILE *checked;      /* where keys without effect are named, or NULL; then all mistakes are listed */

    const char *store; /* imagePath, or NULL */
    struct volumes fs; /* siteFs */
    struct edits env;  /* siteEnv* */
    int slave;         /* mountPropagationStyle */
    struct modules modules;
    const char *default_modules;
    unsigned default_line; /* where they stand in the file */
    const char *opt_udi_image; /* or NULL */

    const char *etc_path; /* or NULL */
    int populate_etc;
    struct words users; /* usersToImport */
    uint64_t group_count;  /* maxGroupCount; 0: all */
    struct cache_rules cache;
    int lenient_workdir;

    const char *udi_mount;            /* where hooks see the root being built, or NULL */
    const char *pre_hook, *post_hook; /* scripts of the node, or NULL */
};

/* Find the file and read it: $SHIFTER_CONFIG, else the node's, else the user's own.  `config` holds
   nothing but, perhaps, `checked`. */
void config_read(struct config *config);

/* Read the file `path`. */
void config_read_file(struct config *config, const char *path);

/* Read a text, which is changed and pointed into. */
int config_parse(struct config *config, char *text, struct complaint *why);

#endif
