/* Who the caller is, from the kernel and from plain files: no name service is asked, for a
   thousand nodes that start at once would all ask it. */
#ifndef SHIFTER_IDENTITY_H
#define SHIFTER_IDENTITY_H

#include <stddef.h>
#include <sys/types.h>

struct identity {
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* supplementary */
    size_t group_count;
    const char *name;   /* of the caller */
    const char *passwd; /* the caller's line */
    const char *home;   /* in that line; may be empty */
    char *group_file;   /* the host's, or "" */
    /* For who sets them after identity_begin: */
    const char *passwd_path, *group_path; /* the host's files; NULL: those of /etc */
    size_t most_groups; /* so many are written beside the primary one; 0: all */
};

/* Ask the kernel; before the user namespace, which hides the supplementary groups. */
void identity_begin(struct identity *who);

/* Find what is missing. */
void identity_read(struct identity *who);

/* The same from texts: the host's passwd and group, and what USER and HOME say, or NULL. */
void identity_from(struct identity *who, char *passwd, char *group, const char *user,
                   const char *home);

/* The container's files: the image's well-formed lines without those that would contradict the
   caller's, then the caller's.  From malloc. */
char *identity_passwd(const struct identity *who, const char *image_passwd);
char *identity_group(const struct identity *who, const char *image_group);

#endif
