/* setupRoot: mount an image for a job on this node, as root, in a prologue.

       setupRoot [OPTION]... -U UID [-G GID] [-J JOB] TYPE IDENTIFIER

   The options of Shifter's own setupRoot that our launcher sees to itself are accepted: -V, -v,
   -s, -u, -N and -m. */
#include "config.h"
#include "description.h"
#include "fail.h"
#include "files.h"
#include "loop.h"
#include "places.h"
#include "prepared.h"
#include "resolve.h"

#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define USAGE "setupRoot -U UID [-G GID] [-J JOB] id|docker IDENTIFIER"

struct order {
    uid_t uid;
    gid_t gid;
    const char *job, *image;
};

static unsigned read_id(const char *text, int option)
{
    char *end;
    unsigned long id = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || id >= UINT32_MAX)
        fail(0, "usage: " USAGE, "not a number of a user or group: '-%c %s'", option, text);
    return (unsigned)id;
}

static const char *named(const char *type, const char *identifier)
{
    char *name;

    if (strcmp(type, "docker") == 0)
        return identifier;
    if (strcmp(type, "id") != 0)
        fail(0, "the types are id and docker", "not a type of image: '%s'", type);
    if (asprintf(&name, "id:%s", identifier) < 0)
        fail(ENOMEM, NULL, "cannot go on");
    return name;
}

static void read_order(struct order *order, int argc, char **argv)
{
    int option, has_uid = 0, has_gid = 0;

    *order = (struct order){.job = "-"};
    while ((option = getopt(argc, argv, "+VU:G:J:v:s:u:N:m:")) != -1) {
        if (option == 'U') {
            order->uid = read_id(optarg, option);
            has_uid = 1;
        } else if (option == 'G') {
            order->gid = read_id(optarg, option);
            has_gid = 1;
        } else if (option == 'J') {
            order->job = optarg;
        } else if (option == '?') {
            fail(0, "usage: " USAGE, "the options are not understood");
        }
    }
    if (!has_uid || argc - optind != 2)
        fail(0, "usage: " USAGE, "a user, a type and an image are needed");
    if (!prepared_is_job(order->job))
        fail(0, "as the batch system calls it, or '-'", "not a job: '%s'", order->job);
    if (!has_gid)
        order->gid = order->uid;
    order->image = named(argv[optind], argv[optind + 1]);
}

/* Root reads what root has written, and nobody else may have. */
static void read_config(struct config *config)
{
    struct stat status;

    config_read(config);
    if (config->path == NULL || config->store == NULL)
        fail(0, "imagePath=/DIRECTORY", "udiRoot.conf of this node names no store");
    if (stat(config->path, &status) < 0 || status.st_uid != 0 || (status.st_mode & 022) != 0)
        fail(0, "root: chown root, chmod go-w", "'%s' can be written by others than root",
             config->path);
}

/* Open the image as its user: what he may not read, root does not mount for him. */
static int open_image(const struct order *order, struct resolution *found,
                      const struct config *config)
{
    struct job job = {.image = order->image};
    const struct node none = {.directory = -1};
    char store[PATH_MAX];
    int file;

    place_of_store(&job, config, store);
    MUST(setgroups(1, &order->gid), "cannot become the user");
    MUST(setegid(order->gid), "cannot become the user");
    MUST(seteuid(order->uid), "cannot become the user");
    resolve_begin(found, &job, store);
    do {
        resolve(found, &none);
        file = resolve_open(found);
    } while (file < 0);
    resolve_end(found);
    MUST(seteuid(0), "cannot become root again");
    MUST(setegid(0), "cannot become root again");
    return file;
}

/* A kernel's driver reads only what our worker has built. */
static void check_origin(const struct order *order, int file)
{
    struct description description;

    description_read(&description, file);
    if (!description.is_whole || description.is_imported)
        fail(0, "the launcher can run it without this program",
             "the image '%s' was made by a user: the kernel must not read it", order->image);
}

/* POSIX ACLs as linux/posix_acl_xattr.h has them. */
struct acl_entry {
    uint16_t tag, permissions;
    uint32_t id;
};

struct acl {
    uint32_t version;
    struct acl_entry entries[5];
};

/* Root's directory, which only this user may enter. */
static void let_in(const char *path, const struct order *order)
{
    const struct acl acl = {2,
                            {{0x01, 7, UINT32_MAX},
                             {0x02, 5, order->uid},
                             {0x04, 0, UINT32_MAX},
                             {0x10, 5, UINT32_MAX},
                             {0x20, 0, UINT32_MAX}}};

    if (setxattr(path, "system.posix_acl_access", &acl, sizeof acl, 0) == 0)
        return;
    /* A kernel without ACLs on tmpfs. */
    MUST(chown(path, 0, order->gid), "cannot give '%s' to the user's group", path);
    MUST(chmod(path, 0750), "cannot give '%s' to the user's group", path);
}

static void make_directory(const char *path, mode_t mode)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        fail(errno, NULL, "cannot make '%s'", path);
}

static void make_place(char path[PATH_MAX], const struct order *order, const char *id)
{
    make_directory("/run/shifter_lite", 0755);
    make_directory(PREPARED_DIR, 0755);
    path_format(path, PREPARED_DIR "/%u", order->uid);
    make_directory(path, 0755);
    path_format(path, PREPARED_DIR "/%u/%s", order->uid, order->job);
    make_directory(path, 0700);
    let_in(path, order);
    path_format(path, PREPARED_DIR "/%u/%s/%s", order->uid, order->job, id);
    make_directory(path, 0755);
}

int main(int argc, char **argv)
{
    struct order order;
    struct config config = {0};
    struct resolution found;
    char path[PATH_MAX];
    int file;

    fail_program = "setupRoot";
    read_order(&order, argc, argv);
    if (geteuid() != 0)
        fail(0, "it is for the prologue of jobs", "only root can mount images");
    /* Nothing that a job brings along may lead us elsewhere. */
    clearenv();
    umask(022);
    read_config(&config);
    file = open_image(&order, &found, &config);
    check_origin(&order, file);
    make_place(path, &order, found.record.id);
    if (!prepared_is_mounted(path))
        loop_mount(file, path);
    return EXIT_SUCCESS;
}
