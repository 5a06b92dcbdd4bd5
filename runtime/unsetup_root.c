/* unsetupRoot: unmount what setupRoot has mounted on this node, as root, in an epilogue.

       unsetupRoot -U UID [-J JOB]     of this user, of this job
       unsetupRoot --all               of all users
       unsetupRoot                     of all users without a process on this node

   Shifter's has no arguments, on nodes of one job each: the last form does the same there, and
   takes nothing from jobs that run.  An epilogue must not take a node out of service because something is
   left: what it cannot do it says, and ends well.  What is not understood unmounts nothing, and
   fails: it is the site's, for no user has a word here. */
#include "attempt.h"
#include "fail.h"
#include "files.h"
#include "prepared.h"
#include "prologue.h"

#include <dirent.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define USAGE "usage: unsetupRoot [-U UID [-J JOB] | --all]"

/* So many mounts may lie on one another. */
enum { LAYERS_MOST = 64, USER_MS = 10000, PATIENCE_MS = 2000, PAUSE_MS = 20 };

struct order {
    int has_user, is_all;
    uid_t uid;
    const char *job; /* or NULL */
};

static void take_option(struct order *order, int option, const char *word)
{
    if (option == 'U' && !order->has_user) {
        order->has_user = 1;
        order->uid = prologue_id(optarg, option, USAGE);
    } else if (option == 'J' && order->job == NULL) {
        order->job = prologue_job(optarg, USAGE);
    } else if (option == 'a') {
        order->is_all = 1;
    } else if (option == 'h') {
        puts(USAGE);
        exit(EXIT_SUCCESS);
    } else if (option == ':') {
        fail(0, USAGE, "the option '-%c' has no value: nothing was unmounted", optopt);
    } else if (option == '?') {
        fail(0, USAGE, "unknown option: '%s'; nothing was unmounted", word);
    } else {
        fail(0, USAGE, "'-%c' stands twice: nothing was unmounted", option);
    }
}

static void read_order(struct order *order, int argc, char **argv)
{
    static const struct option words[] = {
        {"all", no_argument, NULL, 'a'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int option;

    *order = (struct order){0};
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+:U:J:", words, NULL)) != -1)
        take_option(order, option, argv[optind - 1]);
    if (optind < argc)
        fail(0, USAGE, "a word too many: '%s'; nothing was unmounted", argv[optind]);
    if (order->job != NULL && !order->has_user)
        fail(0, USAGE, "a job without its user: '-J %s'; nothing was unmounted", order->job);
    if (order->is_all && order->has_user)
        fail(0, USAGE, "'--all' and a user: nothing was unmounted");
}

/* Each directory has been made by root, and only root can change what is in it: no name there leads
   elsewhere. */
static void each(const char *directory, void (*visit)(const char *path))
{
    DIR *open_directory = opendir(directory);
    struct dirent *entry;
    char path[PATH_MAX];

    if (open_directory == NULL)
        return;
    while ((entry = readdir(open_directory)) != NULL)
        if (entry->d_name[0] != '.') {
            path_format(path, "%s/%s", directory, entry->d_name);
            visit(path);
        }
    closedir(open_directory);
    rmdir(directory);
}

/* Unmount all that lies there, from the top: EINVAL says that nothing does. */
static void unmount(const char *path)
{
    for (int layer = 0; layer < LAYERS_MOST; layer++) {
        if (umount2(path, UMOUNT_NOFOLLOW) == 0)
            continue;
        /* What is still used by a process that is being killed goes when that does. */
        if (errno == EBUSY && umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) == 0)
            continue;
        if (errno != EINVAL)
            warn("cannot unmount '%s': %s", path, strerror(errno));
        break;
    }
    rmdir(path);
}

static void end_job(const char *path)
{
    each(path, unmount);
}

/* End the jobs of a user, or the one that is named, while no setupRoot is at work for the user. */
static void end_jobs(void *with)
{
    const struct order *order = with;
    char path[PATH_MAX];
    int is_locked = prologue_lock(order->uid);

    if (!is_locked)
        warn("a setupRoot of the user %u is at work for too long: not waited for", order->uid);
    if (order->job != NULL) {
        path_format(path, PREPARED_DIR "/%u/%s", order->uid, order->job);
        end_job(path);
    } else {
        path_format(path, PREPARED_DIR "/%u", order->uid);
        each(path, end_job);
    }
    if (is_locked)
        prologue_remove_lock(order->uid);
}

/* A child does it: to unmount an image is to wait for the filesystem that it lies on. */
static void end_user(uid_t uid, const char *job)
{
    struct order order = {.uid = uid, .job = job};
    char path[PATH_MAX];
    struct stat status;

    path_format(path, PREPARED_DIR "/%u", uid);
    if (stat(path, &status) == 0)
        attempt(end_jobs, &order, hint("unmounting for the user %u", uid), USER_MS);
}

/* Whether `name` in /proc is a process of the user that has not ended: one that waits for its parent
   to ask how it ended has no memory. */
static int is_process_of(uid_t uid, const char *name)
{
    char path[PATH_MAX], *text;
    struct stat status;
    int lives;

    path_format(path, "/proc/%s", name);
    if (name[strspn(name, "0123456789")] != '\0' || stat(path, &status) < 0 ||
        status.st_uid != uid)
        return 0;
    path_format(path, "/proc/%s/statm", name);
    text = text_read(path);
    lives = text != NULL && strncmp(text, "0 ", 2) != 0;
    free(text);
    return lives;
}

/* Whether a process of the user is on this node. */
static int has_process(uid_t uid)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    int found = 0;

    while (processes != NULL && !found && (entry = readdir(processes)) != NULL)
        found = is_process_of(uid, entry->d_name);
    if (processes != NULL)
        closedir(processes);
    return found;
}

/* The same of a user whose last processes may be about to end, as keepers of containers do within a
   second.  All users together are waited for no longer. */
static int stays(uid_t uid)
{
    static int left_ms = PATIENCE_MS;
    const struct timespec nap = {0, PAUSE_MS * 1000000};

    for (; has_process(uid); left_ms -= PAUSE_MS) {
        if (left_ms <= 0)
            return 1;
        nanosleep(&nap, NULL);
    }
    return 0;
}

static int spare_the_running;

static void end_users(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    uid_t uid;

    if (name[strspn(name, "0123456789")] != '\0')
        return;
    uid = prologue_id(name, 'U', USAGE);
    /* Root has processes always. */
    if (spare_the_running && uid != 0 && stays(uid))
        warn("left what is mounted for the user %u, who has processes here: --all unmounts it",
             uid);
    else
        end_user(uid, NULL);
}

int main(int argc, char **argv)
{
    struct order order;

    prologue_begin("unsetupRoot");
    if (geteuid() != 0)
        fail(0, "it is for the epilogue of jobs", "only root can unmount images");
    read_order(&order, argc, argv);
    spare_the_running = !order.is_all;
    if (order.has_user)
        end_user(order.uid, order.job);
    else
        each(PREPARED_DIR, end_users);
    return EXIT_SUCCESS;
}
