/* What follows the squashfs in an image file (spool/README.md, "An image"). */
#ifndef SHIFTER_DESCRIPTION_H
#define SHIFTER_DESCRIPTION_H

/* The texts of the image's /etc/passwd and /etc/group, and the names of the libraries that its
   programs need; NULL where the description lacks them. */
struct description {
    const char *passwd, *group;
    const char *const *libs; /* ended by NULL */
    int is_whole;            /* it was there, and nothing was wrong with it */
    int is_imported;         /* the squashfs is a user's */
};

/* Read the description of the image open on `file`.  One that is missing or unknown is empty: then
   the image itself is asked, which takes longer. */
void description_read(struct description *description, int file);

#endif
