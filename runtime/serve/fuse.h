/* An image, served to the kernel by its FUSE protocol (linux/fuse.h). */
#ifndef SHIFTER_FUSE_H
#define SHIFTER_FUSE_H

struct service;

/* Begin to read the squashfs open on `image`, of a kind that is ours. */
struct service *fuse_open(int image);

/* Serve it to the connection `fuse` until it is unmounted. */
_Noreturn void fuse_serve(struct service *service, int fuse);

#endif
