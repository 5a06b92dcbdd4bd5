/* The process that keeps a container open for ranks still to come, and cleans up when it ends.

   It stays outside of the container's mount namespace, for what is inside keeps that alive.  At
   first it holds it by a descriptor; when nobody has come for a while it closes it, and from then
   on only learns of the end: from inotify(7), whose watch on the container's own tmpfs is told
   when that is unmounted, or from the end of the pipe that the image's server writes its errors
   to. */
#ifndef SHIFTER_KEEPER_H
#define SHIFTER_KEEPER_H

#include "image.h"
#include "node.h"
#include "state.h"

struct keeper {
    int go;      /* what is written here tells it how far we are; its end, that we are dead */
    int ack;     /* where it says which namespaces it has open */
    int watch;   /* an inotify instance that it shares with us */
    pid_t child; /* who starts it and the server, and has to be waited for */
};

/* Begin to start the image's server, if it is to have one, and the keeper of the container whose file in
   the node directory is `name`, or empty if the container is private; in its user
   namespace, and not yet in its mount namespace.  `request` is what the caller calls the image. */
void keeper_start(struct keeper *keeper, const struct node *node, const char *name,
                  const struct image *image, const char *request);

/* The mount namespace is made, and the caller in it: let the keeper open it. */
void keeper_hold(const struct keeper *keeper);

/* `path` is on the container's own tmpfs: watch for its end. */
void keeper_watch(struct keeper *keeper, const char *path);

/* What the keeper has open; 0 if it has not said so, and does not within a few milliseconds. */
int keeper_place(const struct keeper *keeper, struct keeper_place *place);

/* The container is ready: begin to keep it, for other ranks too if `is_shared`; `is_known` if its
   file says what the keeper has open. */
void keeper_begin(const struct keeper *keeper, int is_shared, int is_known);

/* Before the application starts, which has no children. */
void keeper_started(const struct keeper *keeper);

#endif
