#include "fuse.h"

#include "../fail.h"
#include "ahead.h"
#include "squashfs.h"

#include <dirent.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    REQUEST = 64 << 10, /* more than the kernel demands of who writes nothing */
    /* 32 pages of 64 KiB, which kernels may want that are not asked for less. */
    REPLY = 2 << 20,
    PAGES_MOST = 256, /* FUSE_MAX_MAX_PAGES of kernels */
    READ_MOST = 16 << 20,
    THREADS_MOST = 4,
    BACKGROUND = 64,
    ROOT = FUSE_ROOT_ID,
    FIRST_COOKIE = 2, /* "." and ".." come before */
    ALONE_MS = 40,
};

/* An image never changes: what the kernel has asked once it needs not ask again. */
static const uint64_t for_ever = 1u << 30;

struct service {
    struct squashfs fs;
    int fuse;
    _Atomic uint32_t flags; /* agreed upon with the kernel */
    _Atomic int has_read;   /* somebody, of a file */
};

struct request {
    struct service *service;
    const struct fuse_in_header *head;
    const void *body;
    size_t length; /* of the body */
    char *reply;   /* room for REPLY bytes */
};

/* Inodes are known to the kernel by their reference, so that nothing has to be remembered of
   them; two numbers are taken. */
static uint64_t node_of(const struct service *service, uint64_t reference)
{
    return reference == service->fs.root ? ROOT : reference + ROOT + 1;
}

static uint64_t reference_of(const struct service *service, uint64_t node)
{
    return node == ROOT ? service->fs.root : node - ROOT - 1;
}

static void answer(const struct request *request, int error, const void *bytes, size_t length)
{
    struct fuse_out_header head = {.error = -error, .unique = request->head->unique};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)(uintptr_t)bytes, length}};
    ssize_t put;

    head.len = (uint32_t)(sizeof head + length);
    do
        put = writev(request->service->fuse, parts, length > 0 ? 2 : 1);
    while (put < 0 && errno == EINTR);
    /* ENOENT: who asked was interrupted meanwhile. */
    if (put < 0 && errno == ENODEV)
        _exit(EXIT_SUCCESS);
}

static void answer_errno(const struct request *request)
{
    answer(request, errno == 0 ? EIO : errno, NULL, 0);
}

/* As the kernel's own squashfs has them, in 512 bytes: what is stored of a file, before it is
   compressed. */
static uint64_t count_blocks(const struct inode *inode)
{
    uint64_t holes = inode->holes < inode->size ? inode->holes : inode->size;

    return S_ISREG(inode->mode) ? (inode->size - holes + 511) / 512 : 0;
}

static void put_attributes(const struct service *service, const struct inode *inode,
                           struct fuse_attr *attributes)
{
    memset(attributes, 0, sizeof *attributes);
    attributes->ino = inode->number;
    attributes->size = inode->size;
    attributes->blocks = count_blocks(inode);
    attributes->atime = attributes->mtime = attributes->ctime = inode->mtime;
    attributes->mode = inode->mode;
    attributes->nlink = inode->links;
    attributes->uid = inode->uid;
    attributes->gid = inode->gid;
    attributes->rdev = inode->device;
    attributes->blksize = service->fs.block_size;
}

static void put_entry(const struct service *service, const struct inode *inode,
                      struct fuse_entry_out *entry)
{
    memset(entry, 0, sizeof *entry);
    entry->nodeid = node_of(service, inode->reference);
    entry->entry_valid = entry->attr_valid = for_ever;
    put_attributes(service, inode, &entry->attr);
}

/* The inode that a request is about; 0 if it was answered with an error. */
static int find(const struct request *request, struct inode *inode)
{
    struct service *service = request->service;

    if (squashfs_inode(&service->fs, reference_of(service, request->head->nodeid), inode) == 0)
        return 1;
    answer_errno(request);
    return 0;
}

static void look_up(const struct request *request)
{
    struct service *service = request->service;
    struct fuse_entry_out entry;
    struct inode directory, inode;
    const char *name = request->body;
    size_t length = strnlen(name, request->length);
    uint64_t reference;

    if (!find(request, &directory))
        return;
    if (squashfs_lookup(&service->fs, &directory, name, length, &reference) < 0) {
        if (errno != ENOENT) {
            answer_errno(request);
            return;
        }
        /* That it is missing, the kernel may remember, too. */
        memset(&entry, 0, sizeof entry);
        entry.entry_valid = for_ever;
        answer(request, 0, &entry, sizeof entry);
    } else if (squashfs_inode(&service->fs, reference, &inode) < 0) {
        answer_errno(request);
    } else {
        put_entry(service, &inode, &entry);
        answer(request, 0, &entry, sizeof entry);
    }
}

static void get_attributes(const struct request *request)
{
    struct fuse_attr_out out = {.attr_valid = for_ever};
    struct inode inode;

    if (!find(request, &inode))
        return;
    put_attributes(request->service, &inode, &out.attr);
    answer(request, 0, &out, sizeof out);
}

static void read_link(const struct request *request)
{
    struct inode inode;
    ssize_t length;

    if (!find(request, &inode))
        return;
    length = squashfs_readlink(&request->service->fs, &inode, request->reply, 4096);
    if (length < 0)
        answer_errno(request);
    else
        answer(request, 0, request->reply, (size_t)length);
}

/* To the kernel a short reply is the end of the file, so it gets all that it asks for, or an error. */
static void read_into(const struct request *request, const struct inode *inode, void *bytes)
{
    const struct fuse_read_in *in = request->body;
    ssize_t length = squashfs_read(&request->service->fs, inode, bytes, in->size, in->offset);

    if (length < 0)
        answer_errno(request);
    else
        answer(request, 0, bytes, (size_t)length);
}

/* More than we have said that we take at once. */
static void read_much(const struct request *request, const struct inode *inode)
{
    const struct fuse_read_in *in = request->body;
    void *bytes = in->size <= READ_MOST ? malloc(in->size) : NULL;

    if (bytes == NULL)
        answer(request, ENOMEM, NULL, 0);
    else
        read_into(request, inode, bytes);
    free(bytes);
}

static void read_file(const struct request *request)
{
    const struct fuse_read_in *in = request->body;
    struct inode inode;

    if (!find(request, &inode))
        return;
    if (in->size <= REPLY)
        read_into(request, &inode, request->reply);
    else
        read_much(request, &inode);
    request->service->has_read = 1;
}

static void seek(const struct request *request)
{
    const struct fuse_lseek_in *in = request->body;
    struct fuse_lseek_out out;
    struct inode inode;

    if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
        answer(request, EINVAL, NULL, 0);
    else if (!find(request, &inode))
        return;
    else if (squashfs_seek(&request->service->fs, &inode, in->offset, in->whence == SEEK_HOLE,
                           &out.offset) < 0)
        answer_errno(request);
    else
        answer(request, 0, &out, sizeof out);
}

/* A listing that is being made. */
struct listing {
    const struct request *request;
    size_t length, limit;
    int is_plus;
};

static int put_name(struct listing *listing, const struct inode *inode, uint64_t number,
                    const char *name, size_t length, unsigned type, uint64_t next)
{
    size_t head = listing->is_plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
    size_t whole = FUSE_DIRENT_ALIGN(head + length);
    char *at = listing->request->reply + listing->length;
    struct fuse_dirent entry;

    if (whole > listing->limit - listing->length)
        return 1;
    memset(at, 0, whole);
    memset(&entry, 0, sizeof entry);
    entry.ino = number;
    entry.off = next;
    entry.namelen = (uint32_t)length;
    entry.type = type;
    if (listing->is_plus && inode != NULL) {
        struct fuse_entry_out known;

        put_entry(listing->request->service, inode, &known);
        memcpy(at, &known, sizeof known);
    }
    memcpy(at + head - FUSE_NAME_OFFSET, &entry, FUSE_NAME_OFFSET);
    memcpy(at + head, name, length);
    listing->length += whole;
    return 0;
}

static int put_one(void *closure, const struct entry *entry, uint64_t next)
{
    struct listing *listing = closure;
    struct inode inode;

    /* An inode that cannot be read is an error for who opens it, not for who lists. */
    if (listing->is_plus &&
        squashfs_inode(&listing->request->service->fs, entry->reference, &inode) == 0)
        return put_name(listing, &inode, entry->number, entry->name, entry->length, entry->type,
                        next);
    return put_name(listing, NULL, entry->number, entry->name, entry->length, entry->type, next);
}

static void list(const struct request *request, int is_plus)
{
    const struct fuse_read_in *in = request->body;
    struct listing listing = {request, 0, in->size < REPLY ? in->size : REPLY, is_plus};
    uint64_t cookie = in->offset;
    struct inode inode;

    if (!find(request, &inode))
        return;
    if (cookie < 1 && put_name(&listing, NULL, inode.number, ".", 1, DT_DIR, 1) == 0)
        cookie = 1;
    if (cookie == 1 && put_name(&listing, NULL, inode.parent, "..", 2, DT_DIR, FIRST_COOKIE) == 0)
        cookie = FIRST_COOKIE;
    if (cookie >= FIRST_COOKIE &&
        squashfs_list(&request->service->fs, &inode, cookie == FIRST_COOKIE ? 0 : cookie, put_one,
                      &listing) < 0 &&
        listing.length == 0)
        answer_errno(request);
    else
        answer(request, 0, request->reply, listing.length);
}

static void state_filesystem(const struct request *request)
{
    const struct squashfs *fs = &request->service->fs;
    struct fuse_statfs_out out = {.st = {.blocks = (fs->end + fs->block_size - 1) / fs->block_size,
                                         .files = fs->inode_count,
                                         .bsize = fs->block_size,
                                         .frsize = fs->block_size,
                                         .namelen = SQUASHFS_NAME_LONGEST}};

    answer(request, 0, &out, sizeof out);
}

/* Nothing is opened here: who asks is told so, and then asks no more, if he can understand that
   (Linux 5.1 for directories).  What was read stays valid. */
static void open_node(const struct request *request, uint32_t flag, uint32_t how)
{
    const struct fuse_open_out out = {.open_flags = how};

    if ((request->service->flags & flag) != 0)
        answer(request, ENOSYS, NULL, 0);
    else
        answer(request, 0, &out, sizeof out);
}

/* No more pages than a reply has room for, however large they are. */
static uint16_t most_pages(void)
{
    const long pages = REPLY / sysconf(_SC_PAGESIZE);

    return (uint16_t)(pages < 1 ? 1 : pages < PAGES_MOST ? pages : PAGES_MOST);
}

static size_t size_of_init(uint32_t minor)
{
    return minor < 5    ? FUSE_COMPAT_INIT_OUT_SIZE
           : minor < 23 ? FUSE_COMPAT_22_INIT_OUT_SIZE
                        : sizeof(struct fuse_init_out);
}

/* What the kernel does not offer it would not understand. */
static void agree(const struct request *request, const struct fuse_init_in *in)
{
    /* No files are opened here: they need no state.  Targets of links and listings are kept. */
    const uint32_t flags = FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
                           FUSE_CACHE_SYMLINKS | FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT |
                           FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO;
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                .minor = FUSE_KERNEL_MINOR_VERSION,
                                .max_readahead = in->max_readahead,
                                .flags = flags & in->flags,
                                .max_background = BACKGROUND,
                                .congestion_threshold = BACKGROUND * 3 / 4,
                                .max_write = 4096,
                                .time_gran = 1};

    if ((out.flags & FUSE_MAX_PAGES) != 0)
        out.max_pages = most_pages();
    request->service->flags = out.flags;
    answer(request, 0, &out, size_of_init(in->minor));
}

static void begin(const struct request *request)
{
    const struct fuse_init_out ours = {.major = FUSE_KERNEL_VERSION,
                                       .minor = FUSE_KERNEL_MINOR_VERSION};
    struct fuse_init_in in = {0};

    memcpy(&in, request->body, request->length < sizeof in ? request->length : sizeof in);
    if (in.major < FUSE_KERNEL_VERSION)
        answer(request, EPROTO, NULL, 0);
    else if (in.major > FUSE_KERNEL_VERSION)
        /* It asks again, in our words. */
        answer(request, 0, &ours, FUSE_COMPAT_INIT_OUT_SIZE);
    else
        agree(request, &in);
}

/* What is not here is not known. */
static void serve(const struct request *request)
{
    switch (request->head->opcode) {
    case FUSE_INIT:
        begin(request);
        break;
    case FUSE_LOOKUP:
        look_up(request);
        break;
    case FUSE_GETATTR:
        get_attributes(request);
        break;
    case FUSE_READLINK:
        read_link(request);
        break;
    case FUSE_READ:
        read_file(request);
        break;
    case FUSE_LSEEK:
        seek(request);
        break;
    case FUSE_OPEN:
        open_node(request, FUSE_NO_OPEN_SUPPORT, FOPEN_KEEP_CACHE);
        break;
    case FUSE_OPENDIR:
        open_node(request, FUSE_NO_OPENDIR_SUPPORT, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR);
        break;
    case FUSE_READDIR:
        list(request, 0);
        break;
    case FUSE_READDIRPLUS:
        list(request, 1);
        break;
    case FUSE_STATFS:
        state_filesystem(request);
        break;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_DESTROY:
        answer(request, 0, NULL, 0);
        break;
    case FUSE_IOCTL:
        /* Old kernels give the caller what they get, and ENOSYS is no answer of a file. */
        answer(request, ENOTTY, NULL, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        /* The kernel takes flush, access and the like for done, and asks no more. */
        answer(request, ENOSYS, NULL, 0);
    }
}

/* Take one request, and answer it. */
static void take(struct service *service, char *in, char *out)
{
    const struct fuse_in_header *head = (const void *)in;
    ssize_t got = read(service->fuse, in, REQUEST - 1);

    if (got == 0 || (got < 0 && errno == ENODEV))
        _exit(EXIT_SUCCESS);
    /* ENOENT: the request was taken back. */
    if (got < 0 && errno != EINTR && errno != ENOENT && errno != EAGAIN)
        fail(errno, NULL, "cannot serve the image");
    if (got >= (ssize_t)sizeof *head) {
        const size_t length = (size_t)got - sizeof *head;
        const struct request request = {service, head, in + sizeof *head, length, out};

        /* A name ends with NUL, whatever the request says. */
        in[got] = '\0';
        serve(&request);
    }
}

static void *work(void *closure)
{
    char *in = malloc(REQUEST), *out = malloc(REPLY);

    if (in == NULL || out == NULL)
        fail(ENOMEM, NULL, "cannot serve the image");
    for (;;)
        take(closure, in, out);
    return NULL;
}

static int processors(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static long now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (long)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

struct service *fuse_open(int image)
{
    static struct service service;

    if (squashfs_begin(&service.fs, image) < 0)
        fail(errno, NULL, "it cannot be read");
    return &service;
}

void fuse_serve(struct service *service, int fuse)
{
    static char in[REQUEST], out[REPLY];
    int threads = processors(), has_read = 0;
    long begun = now_ms();

    service->fuse = fuse;
    /* What starts asks one thing after the other: there more threads would only be in its way. */
    while (now_ms() - begun < ALONE_MS) {
        take(service, in, out);
        if (service->has_read && !has_read)
            ahead_begin(&service->fs, threads);
        has_read = service->has_read;
    }
    squashfs_widen(&service->fs);
    for (int at = 1; at < threads && at < THREADS_MOST; at++) {
        pthread_t thread;

        /* One alone can do it. */
        if (pthread_create(&thread, NULL, work, service) != 0)
            break;
        pthread_detach(thread);
    }
    work(service);
    _exit(EXIT_SUCCESS);
}
