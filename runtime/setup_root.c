/* setupRoot: mount an image for a job on this node, as root, in a prologue.

       setupRoot [OPTION]... -U UID [-G GID] [-J JOB] [--] TYPE IDENTIFIER

   Of the site's siteFs and the volumes (-v, as --volume has them) it mounts each perNodeCache,
   where the site has a perNodeCachePath.  The options of Shifter's own setupRoot that our launcher sees
   to itself are accepted: -V, -s, -u, -N and -m.

   A batch system takes a node out of service when a prologue fails.  So what depends on the words
   of users, on the store and on the room of this node ends well, with a line that says what was not
   done: the launcher goes on without it.  What the site has written wrong fails. */
#include "attempt.h"
#include "cache.h"
#include "config.h"
#include "fail.h"
#include "files.h"
#include "loop.h"
#include "prepared.h"
#include "prologue.h"
#include "search.h"

#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USAGE                                                                                      \
    "usage: setupRoot [--strict] -U UID [-G GID] [-J JOB] [-v VOLUMES] [--] id|docker IDENTIFIER"

enum { CACHES_MOST = 16, MOUNT_MS = 10000 };

/* What cannot be done for users, of which there is a line each. */
static unsigned troubles;

static void trouble(const char *fact, const char *advice)
{
    say_trouble(fact, advice);
    troubles++;
}

struct order {
    uid_t uid;
    gid_t gid;
    int has_uid, has_gid, has_job, is_strict, wants_something;
    const char *job;
    const char *image; /* NULL: none that could be found */
    struct volumes volumes;
};

static void add_volumes(struct order *order, char *text)
{
    struct complaint why = {0, "", ""};

    order->wants_something |= text[strspn(text, " \t\n")] != '\0';
    if (volumes_parse(&order->volumes, text, ASKED_BY_USER, &why) < 0)
        trouble(why.fact, why.advice);
}

/* An option that stands twice may be a user's word, behind a variable without quotes. */
static void only_once(int *has, int option)
{
    if ((*has)++)
        fail(0, USAGE, "'-%c' stands twice", option);
}

static void take_option(struct order *order, int option, const char *word)
{
    switch (option) {
    case 'U':
        only_once(&order->has_uid, option);
        order->uid = prologue_id(optarg, option, USAGE);
        break;
    case 'G':
        only_once(&order->has_gid, option);
        order->gid = prologue_id(optarg, option, USAGE);
        break;
    case 'J':
        only_once(&order->has_job, option);
        order->job = prologue_job(optarg, USAGE);
        break;
    case 'v':
        add_volumes(order, optarg);
        break;
    case '!':
        order->is_strict = 1;
        break;
    case 'h':
        puts(USAGE);
        exit(EXIT_SUCCESS);
    case ':':
        fail(0, USAGE, "the option '-%c' has no value", optopt);
    case '?':
        fail(0, USAGE, "unknown option: '%s'", word);
    default:
        break;
    }
}

/* What the user's words name; NULL if that is no image. */
static const char *named(char *const *words, int count)
{
    char *name;

    if (count < 2 || words[1][0] == '\0')
        trouble("no image was named", "");
    else if (count > 2)
        trouble("more than a type and an image", "write the variables in quotes");
    else if (strcmp(words[0], "docker") == 0)
        return words[1];
    else if (strcmp(words[0], "id") != 0)
        trouble(hint("not a type of image: '%.200s'", words[0]), "the types are id and docker");
    else if (asprintf(&name, "id:%s", words[1]) >= 0)
        return name;
    return NULL;
}

static void read_order(struct order *order, int argc, char **argv)
{
    static const struct option words[] = {
        {"strict", no_argument, NULL, '!'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int option;

    *order = (struct order){.job = "-"};
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+:VU:G:J:v:s:u:N:m:", words, NULL)) != -1)
        take_option(order, option, argv[optind - 1]);
    if (!order->has_uid)
        fail(0, USAGE, "a user is needed: -U UID");
    order->image = named(argv + optind, argc - optind);
    order->wants_something |= order->image != NULL;
}

static void check_roots(const char *path)
{
    struct stat status;

    if (stat(path, &status) < 0 || status.st_uid != 0 || (status.st_mode & 022) != 0)
        fail(0, "root: chown root, chmod go-w", "'%s' can be written by others than root", path);
}

/* Root reads what root has written, and nobody else may have. */
static void read_config(struct config *config)
{
    char *directory;

    config_read(config);
    if (config->path == NULL || config->store == NULL)
        fail(0, "imagePath=/DIRECTORY", "udiRoot.conf of this node names no store");
    if (config->store[0] != '/')
        fail(0, "imagePath=/DIRECTORY", "not an absolute path: '%s'", config->store);
    check_roots(config->path);
    directory = must_copy(config->path);
    *strrchr(directory, '/') = '\0';
    check_roots(directory);
    free(directory);
}

/* What the children have to do. */
struct mounting {
    const struct order *order;
    const struct search *search;
    const struct cache_site *site;
    const struct volume *volume;
    int place;
    unsigned tried; /* caches of the user's */
    char name[ID_LENGTH + 1];
};

static void mount_image(void *with)
{
    const struct mounting *this = with;

    loop_mount_image(this->search->file, this->place, this->name, this->order->uid,
                     this->search->gid);
}

static void mount_cache(void *with)
{
    const struct mounting *this = with;

    fail_program = hint("setupRoot: a perNodeCache at '%s'", this->volume->to);
    cache_mount(this->site, this->volume, this->place, this->name, this->order->uid,
                this->search->gid);
}

/* Have a child mount at `name`; what it leaves without a mount is removed. */
static void mount_at(struct mounting *this, void (*work)(void *), const char *what)
{
    if (mkdirat(this->place, this->name, 0755) < 0 && errno != EEXIST)
        fail(errno, NULL, "cannot make '%s' in " PREPARED_DIR, this->name);
    if (attempt(work, this, what, MOUNT_MS))
        return;
    troubles++;
    unlinkat(this->place, this->name, AT_REMOVEDIR);
}

static void prepare_image(struct mounting *this)
{
    char path[PATH_MAX];

    path_format(path, PREPARED_DIR "/%u/%s/%s", this->order->uid, this->order->job,
                this->search->id);
    memcpy(this->name, this->search->id, sizeof this->name);
    if (!prepared_is_mounted(path))
        mount_at(this, mount_image, "mounting the image");
}

/* Whether the cache is there.  A kernel that cannot prepare a mount before it is seen has left it
   to root where a setupRoot was killed. */
static int is_there(const struct mounting *this)
{
    char path[PATH_MAX];
    struct stat status;
    int directory;

    path_format(path, PREPARED_DIR "/%u/%s/%s", this->order->uid, this->order->job, this->name);
    if (!prepared_is_cache(path))
        return 0;
    directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory >= 0 && fstat(directory, &status) == 0 && status.st_uid == 0)
        loop_give_cache(directory, this->order->uid, this->search->gid);
    else if (directory >= 0)
        close(directory);
    return 1;
}

static unsigned count_caches(int place)
{
    DIR *directory = fdopendir(openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct dirent *entry;
    unsigned count = 0;

    if (directory == NULL)
        fail(errno, NULL, "cannot read a directory in " PREPARED_DIR);
    while ((entry = readdir(directory)) != NULL)
        count += strncmp(entry->d_name, "cache.", strlen("cache.")) == 0;
    closedir(directory);
    return count;
}

/* Whether the site allows the user such a cache; `rules` is NULL for the site's own. */
static int is_allowed(const struct volume *volume, const struct cache_rules *rules)
{
    struct complaint why;

    if (rules == NULL || volume_check_cache(volume, rules, &why) == 0)
        return 1;
    trouble(why.fact, why.advice);
    return 0;
}

/* Whether no more caches are made: the user has had enough of them, or the prologue of its time.
   What fails takes time, too, and a line. */
static int is_enough(struct mounting *this, const struct cache_rules *rules)
{
    const char *to = this->volume->to;

    if (rules != NULL &&
        (count_caches(this->place) >= CACHES_MOST || this->tried++ >= CACHES_MOST))
        trouble(hint("too many perNodeCaches: not made from '%s' on", to),
                hint("a job has at most %d", CACHES_MOST));
    else if (prologue_time_left() == 0)
        trouble(hint("the time of a prologue is over: no perNodeCache is made from '%s' on", to),
                "");
    else
        return 0;
    return 1;
}

static void prepare_caches(struct mounting *this, const struct volumes *volumes,
                           const struct cache_rules *rules)
{
    for (size_t at = 0; at < volumes->count; at++) {
        const struct volume *volume = this->volume = &volumes->list[at];

        if (!volume->cache)
            continue;
        prepared_cache_name(this->name, volume->to, volume->cache_size);
        if (is_there(this))
            continue;
        if (is_enough(this, rules))
            return;
        if (is_allowed(volume, rules))
            mount_at(this, mount_cache, hint("a perNodeCache at '%s'", volume->to));
    }
}

static int has_cache(const struct volumes *volumes)
{
    for (size_t at = 0; at < volumes->count; at++)
        if (volumes->list[at].cache)
            return 1;
    return 0;
}

/* Mount what was found.  No directory is left where nothing could be mounted. */
static void fill_place(struct mounting *this, const struct config *config)
{
    const struct order *order = this->order;
    char path[PATH_MAX];

    this->place = prologue_make_place(order->uid, order->job);
    if (this->search->file >= 0)
        prepare_image(this);
    if (config->cache.path != NULL) {
        prepare_caches(this, &config->fs, NULL);
        prepare_caches(this, &order->volumes, &config->cache);
    }
    path_format(path, PREPARED_DIR "/%u/%s", order->uid, order->job);
    if (rmdir(path) == 0)
        prologue_remove_lock(order->uid);
}

static void prepare(const struct order *order, const struct config *config,
                    const struct cache_site *site)
{
    struct search search = {.uid = order->uid, .gid = order->gid, .has_gid = order->has_gid, .file = -1};
    struct mounting this = {.order = order, .search = &search, .site = site};
    int wants_cache =
        config->cache.path != NULL && (has_cache(&config->fs) || has_cache(&order->volumes));

    if (order->image != NULL || !order->has_gid)
        search_image(&search, config->store, order->image);
    troubles += search.troubles;
    if (!search.has_gid || (search.file < 0 && !wants_cache))
        return;
    if (prologue_lock(order->uid))
        fill_place(&this, config);
    else
        trouble(hint("the directory of the user %u is locked for too long", order->uid),
                "another setupRoot is at work");
}

int main(int argc, char **argv)
{
    struct order order;
    struct config config = {0};
    struct cache_site site = {-1, -1, NULL};

    prologue_begin("setupRoot");
    if (geteuid() != 0)
        fail(0, "it is for the prologue of jobs", "only root can mount images");
    read_order(&order, argc, argv);
    /* Nothing that a job brings along may lead us elsewhere. */
    clearenv();
    read_config(&config);
    if (config.cache.path != NULL)
        cache_site_open(&site, &config.cache);
    if (order.wants_something)
        prepare(&order, &config, &site);
    return order.is_strict && troubles > 0 ? EXIT_SHIFTER : EXIT_SUCCESS;
}
