/* setupRoot: mount an image for a job on this node, as root, in a prologue.

       setupRoot [OPTION]... -U UID [-G GID] [-J JOB] TYPE IDENTIFIER

   Of the volumes (-v, as --volume has them) and the site's siteFs it mounts each perNodeCache, where
   the site has a perNodeCachePath.  The options of Shifter's own setupRoot that our launcher sees to
   itself are accepted: -V, -s, -u, -N and -m. */
#include "cache.h"
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
    struct volumes volumes;
};

static unsigned read_id(const char *text, int option)
{
    char *end;
    unsigned long id = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || id >= UINT32_MAX)
        fail(0, "usage: " USAGE, "not a number of a user or group: '-%c %s'", option, text);
    return (unsigned)id;
}

static void add_volumes(struct order *order, char *text)
{
    struct complaint why;

    if (volumes_parse(&order->volumes, text, ASKED_BY_USER, &why) < 0)
        fail(0, why.advice, "%s", why.fact);
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
        } else if (option == 'v') {
            add_volumes(order, optarg);
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

/* The directory of what is mounted for the job. */
static void make_place(const struct order *order)
{
    char path[PATH_MAX];

    make_directory("/run/shifter_lite", 0755);
    make_directory(PREPARED_DIR, 0755);
    path_format(path, PREPARED_DIR "/%u", order->uid);
    make_directory(path, 0755);
    path_format(path, PREPARED_DIR "/%u/%s", order->uid, order->job);
    make_directory(path, 0700);
    let_in(path, order);
}

static void make_mount_point(char path[PATH_MAX], const struct order *order, const char *name)
{
    path_format(path, PREPARED_DIR "/%u/%s/%s", order->uid, order->job, name);
    make_directory(path, 0755);
}

static void mount_image(const struct order *order, const char *id, int file)
{
    char path[PATH_MAX];

    make_mount_point(path, order, id);
    if (!prepared_is_mounted(path))
        loop_mount(file, path);
}

static void mount_caches(const struct order *order, const struct volumes *volumes,
                         const struct cache_rules *rules)
{
    char path[PATH_MAX], name[PREPARED_CACHE_NAME];
    struct complaint why;

    for (size_t at = 0; at < volumes->count; at++) {
        const struct volume *volume = &volumes->list[at];

        if (!volume->cache)
            continue;
        if (volume_check_cache(volume, rules, &why) < 0)
            fail(0, why.advice, "%s", why.fact);
        prepared_cache_name(name, volume->to, volume->cache_size);
        make_mount_point(path, order, name);
        if (!prepared_is_cache(path))
            cache_mount(volume, rules->path, order->uid, order->gid, path);
    }
}

int main(int argc, char **argv)
{
    struct order order;
    struct config config = {0};
    struct resolution found;
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
    make_place(&order);
    mount_image(&order, found.record.id, file);
    if (config.cache.path != NULL) {
        mount_caches(&order, &order.volumes, &config.cache);
        mount_caches(&order, &config.fs, &config.cache);
    }
    return EXIT_SUCCESS;
}
