/* unsetupRoot: unmount what setupRoot has mounted on this node, as root, in an epilogue.

       unsetupRoot [-U UID [-J JOB]]

   Without a user, of all.  An epilogue must not take a node out of service because something is
   left: what it cannot do it says, and ends well. */
#include "fail.h"
#include "files.h"
#include "prepared.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

/* Each directory has been made by root, and only he can change what is in it: no name there leads
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

static void unmount(const char *path)
{
    /* What is still used by who is being killed goes when he does. */
    if (umount2(path, UMOUNT_NOFOLLOW) < 0 && errno == EBUSY &&
        umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) < 0)
        warn("cannot unmount '%s': %s", path, strerror(errno));
    rmdir(path);
}

static void end_job(const char *path)
{
    each(path, unmount);
}

static void end_user(const char *path)
{
    each(path, end_job);
}

int main(int argc, char **argv)
{
    const char *user = NULL, *job = NULL;
    char path[PATH_MAX];
    int option;

    fail_program = "unsetupRoot";
    while ((option = getopt(argc, argv, "U:J:")) != -1) {
        if (option == 'U')
            user = optarg;
        else if (option == 'J')
            job = optarg;
    }
    if (geteuid() != 0)
        fail(0, "it is for the epilogue of jobs", "only root can unmount images");
    if ((user != NULL && user[strspn(user, "0123456789")] != '\0') ||
        (job != NULL && (user == NULL || !prepared_is_job(job))))
        fail(0, "usage: unsetupRoot [-U UID [-J JOB]]", "not a user and a job");
    path_format(path, PREPARED_DIR "%s%s%s%s", user != NULL ? "/" : "", user != NULL ? user : "",
                job != NULL ? "/" : "", job != NULL ? job : "");
    if (job != NULL)
        end_job(path);
    else if (user != NULL)
        end_user(path);
    else
        each(path, end_user);
    return EXIT_SUCCESS;
}
