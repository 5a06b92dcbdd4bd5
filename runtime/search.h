/* Which image the words of a user mean, and which groups the user has, found for root by a child
   that becomes the user. */
#ifndef SHIFTER_SEARCH_H
#define SHIFTER_SEARCH_H

#include "record.h"

#include <sys/types.h>

struct search {
    uid_t uid;
    gid_t gid;
    int has_gid;   /* it is known */
    int file;      /* the image, open; -1: there is none */
    unsigned troubles;
    char id[ID_LENGTH + 1];
};

/* Find the group of `search->uid`, if that is not known, and open the image `name`, which may be
   NULL, of `store`.  A user without a group ends the prologue; anything else that cannot be had is said
   and counted. */
void search_image(struct search *search, const char *store, const char *name);

#endif
