/* The image as a mount: squashfuse_ll serves it from outside our mount namespace.

   Who holds what decides that nothing is left behind:

     server    the image, /dev/fuse, and no namespace, directory or descriptor of the caller's
     keeper    /dev/fuse, until it has said which server died: only then the kernel ends the wait
               of whatever asks that server
     launcher  /dev/fuse until the mount, then nothing
     kernel    the mount, as long as a process of the container lives

   When the last process inside ends, its mount namespace goes, with it the mount, and the server
   reads ENODEV and exits.  Until the mount exists the server waits for one byte from the launcher;
   end of file instead means that the launcher is dead, and it exits too. */
#ifndef SHIFTER_IMAGE_H
#define SHIFTER_IMAGE_H

#include "server.h"

#include <limits.h>
#include <sys/types.h>

struct image {
    char prepared[PATH_MAX]; /* where root has mounted it; empty: nowhere */
    struct server server;    /* `fuse` is -1 if no server is needed */
    int go;               /* where the server waits for its byte */
    int errors;           /* what the server says on its standard error; -1: none */
};

/* Make ready what the server of the image `id`, open on `file`, needs; in the user namespace that will
   mount it, for the kernel demands that /dev/fuse is opened and mounted by the same one.  No server
   is needed if root has mounted the image for a job of the user `uid`, and `use_root_mount`. */
void image_open(struct image *image, uid_t uid, const char *id, int use_root_mount, int file);

/* The server is started: what is its alone is closed here. */
void image_started(struct image *image);

/* Mount it at `target`, in the mount namespace, and let the server begin. */
void image_mount(struct image *image, const char *target);

/* Wait for the server's first answer; -1 and errno if it gave none. */
int image_wait(const struct image *image, const char *target);

/* Fail with that `error`, and what the server said. */
_Noreturn void image_fail(const struct image *image, int error);

#endif
