/* The container's own files in /etc: who the caller is, and what of the node's programs there need
   to find other hosts; and what the site has for all containers (etcPath). */
#ifndef SHIFTER_ETC_H
#define SHIFTER_ETC_H

#include "config.h"
#include "description.h"
#include "identity.h"

#include <stddef.h>
#include <stdio.h>

struct etc {
    const struct config *config;
    struct {
        const char *name;
        char *bytes;
        size_t length;
    } *files;
    size_t count, room;
    const char *users; /* lines of the node's passwd, with populateEtcDynamically */
};

/* Say where the site keeps the users and groups of this node; between identity_begin and
   identity_read. */
void etc_name_sources(struct identity *who, const struct config *config);

/* Read the node's and the site's files; before root_begin, which covers the node's /etc. */
void etc_read(struct etc *etc, const struct config *config, const struct identity *who);

/* Write them, passwd and group into the skeleton; `place` is where the image's /etc is. */
void etc_write(const struct etc *etc, const struct identity *who,
               const struct description *description, const char *place);

/* Write which versions of the node's files the container's /etc is made of. */
void etc_key(const struct config *config, FILE *key);

/* Let the image's files of passwords be empty: shadow, gshadow, and copies of them. */
void etc_hide(const char *place);

#endif
