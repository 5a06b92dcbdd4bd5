#include "command.h"

#include "fail.h"
#include "files.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static size_t count(char *const *words)
{
    size_t length = 0;

    while (words[length] != NULL)
        length++;
    return length;
}

char **command_choose(const struct job *job, const struct record *record)
{
    const struct words *entry = &record->entrypoint, *arguments = &record->cmd;
    size_t given = count(job->command), at = 0;
    char **command;

    if (!job->entrypoint_asked)
        return job->command;
    command = must_allocate(entry->count + arguments->count + given + 2, sizeof *command);
    if (job->entrypoint != NULL)
        command[at++] = (char *)job->entrypoint;
    else
        for (size_t word = 0; word < entry->count; word++)
            command[at++] = (char *)entry->list[word];
    for (size_t word = 0; word < given; word++)
        command[at++] = job->command[word];
    if (given == 0 && job->entrypoint == NULL)
        for (size_t word = 0; word < arguments->count; word++)
            command[at++] = (char *)arguments->list[word];
    if (at == 0)
        fail(0, "write --entrypoint=COMMAND, or a command",
             "the image '%s' names neither an entrypoint nor a command", job->image);
    return command;
}

static const char *image_workdir(const struct record *record)
{
    return record->workdir != NULL && record->workdir[0] != '\0' ? record->workdir : NULL;
}

/* Change to a directory of the container's; -1 and errno.  By a link to /proc/self/fd an image
   could lead us to one of the host's that the caller has open: of such a one the kernel says that
   it cannot be reached (getcwd(2)). */
static int enter(const char *path)
{
    char place[PATH_MAX];

    if (chdir(path) < 0)
        return -1;
    if (syscall(SYS_getcwd, place, sizeof place) > 0 && place[0] == '/')
        return 0;
    MUST(chdir("/"), "cannot enter the root");
    errno = EXDEV;
    return -1;
}

/* The caller's directory is not in the container: the image's own, else the root. */
static void fall_back(const char *workdir, const char *cwd)
{
    const char *place = workdir != NULL && enter(workdir) == 0 ? workdir : "/";

    if (cwd == NULL)
        warn("the present directory is gone: starting in '%s'", place);
    else if (strcmp(cwd, "/") != 0)
        warn("'%s' is not in the container: starting in '%s'", cwd, place);
}

void command_enter_workdir(const struct job *job, const struct record *record, const char *cwd)
{
    const char *workdir = job->workdir;

    if (!job->workdir_asked) {
        if (cwd == NULL || strcmp(cwd, "/") == 0 || enter(cwd) < 0)
            fall_back(image_workdir(record), cwd);
        return;
    }
    if (workdir == NULL)
        workdir = image_workdir(record);
    if (workdir == NULL)
        fail(0, "write --workdir=/DIRECTORY", "the image '%s' names no working directory",
             job->image);
    if (enter(workdir) < 0)
        fail(errno, "name a directory of the image, or one of the host's that is seen in it",
             "cannot start in '%s' in the container", workdir);
}

void command_run(char **command, char **environment)
{
    static char shell[] = "/bin/sh";
    char *alone[] = {getenv("SHELL"), NULL};

    if (command[0] == NULL) {
        if (alone[0] == NULL || alone[0][0] != '/' || access(alone[0], X_OK) < 0)
            alone[0] = shell;
        command = alone;
    }
    /* The search follows the container's PATH, and execvpe() that of `environ`. */
    environ = environment;
    execvp(command[0], command);
    if (errno == ENOENT)
        fail_as(EXIT_NOT_FOUND, errno, "is it in the image, in a directory of its PATH?",
                "cannot execute '%s' in the container", command[0]);
    fail_as(EXIT_NOT_EXECUTABLE, errno, "may you execute it, and is it made for this machine?",
            "cannot execute '%s' in the container", command[0]);
}
