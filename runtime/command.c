#include "command.h"

#include "executable.h"
#include "fail.h"
#include "files.h"
#include "present.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHELL "/bin/sh"

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

/* Start in the image's directory or in '/', as Shifter does, where the site or the caller allows it. */
static const char *fall_back(const char *workdir)
{
    const char *place = workdir != NULL && enter(workdir) == 0 ? workdir : "/";

    if (strcmp(place, "/") == 0)
        MUST(chdir("/"), "cannot enter the root");
    return place;
}

#define LENIENT_HINT "start elsewhere with --workdir=/DIRECTORY, or use --lenient-workdir"

static const char *has_no_name(const struct plan *plan, int lenient, const char *workdir)
{
    int is_long = plan->cwd_error == ERANGE || plan->cwd_error == ENAMETOOLONG;
    const char *fact = is_long ? "the path of the present directory is longer than 4095 bytes"
                       : plan->cwd_error == ENOENT ? "the present directory was removed"
                                                   : "the present directory cannot be found";
    const char *place;

    if (!lenient)
        fail(is_long || plan->cwd_error == ENOENT ? 0 : plan->cwd_error, LENIENT_HINT, "%s", fact);
    place = fall_back(workdir);
    warn("%s: starting in '%s'", fact, place);
    return place;
}

/* A directory of the image's, which has the name of the caller's. */
static void compare(const struct plan *plan)
{
    struct file_id here;

    if (present_is_covered(plan, plan->cwd))
        return;
    file_id_read(&here, AT_FDCWD, ".");
    if (!file_id_is_same(&here, &plan->here))
        warn("'%s' in the container is the image's directory, not this node's", plan->cwd);
}

static const char *enter_present(const struct plan *plan, int lenient, const char *workdir)
{
    const char *place;
    int error;

    if (plan->cwd == NULL)
        return has_no_name(plan, lenient, workdir);
    if (strcmp(plan->cwd, "/") == 0)
        return fall_back(workdir);
    if (enter(plan->cwd) == 0) {
        compare(plan);
        return plan->cwd;
    }
    error = errno;
    if (!lenient)
        fail(error, LENIENT_HINT, "cannot start in the present directory '%s' in the container",
             plan->cwd);
    place = fall_back(workdir);
    warn("'%s' is not in the container: starting in '%s'", plan->cwd, place);
    return place;
}

const char *command_enter_workdir(const struct job *job, const struct record *record,
                                  const struct plan *plan)
{
    int lenient = job->lenient_workdir || plan->config->lenient_workdir, error;
    const char *workdir = job->workdir;

    if (!job->workdir_asked)
        return enter_present(plan, lenient, image_workdir(record));
    if (workdir == NULL)
        workdir = image_workdir(record);
    if (workdir == NULL)
        fail(0, "write --workdir=/DIRECTORY", "the image '%s' names no working directory",
             job->image);
    if (enter(workdir) == 0)
        return workdir;
    error = errno;
    if (!lenient)
        fail(error, "to start in '/' instead, use --lenient-workdir",
             "cannot start in '%s' in the container", workdir);
    warn("cannot start in '%s' in the container: %s: starting in '/'", workdir, strerror(error));
    return fall_back(NULL);
}

/* A file that the kernel takes for no program is a script without a first line (execvp(3)). */
static void execute(const char *path, char **command)
{
    size_t length = count(command);
    char **script;

    execv(path, command);
    if (errno != ENOEXEC)
        return;
    if (!executable_is_text(path)) {
        errno = ENOEXEC;
        return;
    }
    script = must_allocate(length + 2, sizeof *script);
    script[0] = (char *)"sh";
    script[1] = (char *)path;
    if (length > 1)
        memcpy(script + 2, command + 1, (length - 1) * sizeof *script);
    execv(SHELL, script);
    errno = ENOEXEC;
}

static int is_elsewhere(int error)
{
    return error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG || error == ELOOP ||
           error == ESTALE || error == ENODEV || error == ETIMEDOUT;
}

static const char *path_of(char *const *environment)
{
    for (; *environment != NULL; environment++)
        if (strncmp(*environment, "PATH=", strlen("PATH=")) == 0)
            return *environment + strlen("PATH=");
    return NULL;
}

/* Take the first of `places`, and write where `name` would be in it, if that is no longer than a path
   may be; 0 if there are no more. */
static int take_place(const char **places, const char *name, char path[PATH_MAX])
{
    const char *start, *end;
    int length;

    do {
        start = *places;
        if (start == NULL)
            return 0;
        end = strchrnul(start, ':');
        *places = *end == ':' ? end + 1 : NULL;
        length = snprintf(path, PATH_MAX, "%.*s%s%s", (int)(end - start), start,
                          end > start ? "/" : "", name);
    } while (length >= PATH_MAX);
    return 1;
}

void command_find(char *const *command, char *const *environment)
{
    const char *places = path_of(environment);
    struct stat status;
    char path[PATH_MAX];

    if (command[0] == NULL || command[0][0] == '\0')
        return;
    if (strchr(command[0], '/') != NULL) {
        stat(command[0], &status);
        return;
    }
    while (take_place(&places, command[0], path))
        if (stat(path, &status) == 0)
            return;
}

/* As execvp(3), but what is not there is only looked at: to fail to execute it costs much more.
   What may not be executed does not end the search, but is told at its end: `tried` is the file that
   errno is about, if there is one. */
static void search(char **command, const char *places, char tried[PATH_MAX])
{
    struct stat status;
    char path[PATH_MAX];
    int denied = 0;

    while (take_place(&places, command[0], path)) {
        int is_there = stat(path, &status) == 0;

        if (is_there)
            execute(path, command);
        if ((is_there && tried[0] == '\0') || (errno == EACCES && !denied) || !is_elsewhere(errno))
            strcpy(tried, path);
        if (errno == EACCES)
            denied = 1;
        else if (!is_elsewhere(errno))
            return;
    }
    errno = denied ? EACCES : ENOENT;
}

/* The kernel's word is not always the reason: what is missing may be the interpreter. */
static _Noreturn void fail_executing(const char *command, const char *tried)
{
    int error = errno;
    const char *why = tried[0] != '\0' ? executable_explain(tried, error) : NULL;

    if (error == ENOENT)
        fail_as(EXIT_NOT_FOUND, error,
                why != NULL ? why : "is it in the image, in a directory of its PATH?",
                "cannot execute '%s' in the container", command);
    fail_as(EXIT_NOT_EXECUTABLE, error,
            why != NULL ? why : "may you execute it, and is it made for this machine?",
            "cannot execute '%s' in the container", command);
}

void command_run(char **command, char **environment)
{
    char *alone[] = {getenv("SHELL"), NULL}, tried[PATH_MAX] = "";

    if (command[0] == NULL) {
        if (alone[0] == NULL || alone[0][0] != '/' || access(alone[0], X_OK) < 0)
            alone[0] = (char *)SHELL;
        command = alone;
    }
    environ = environment;
    if (strchr(command[0], '/') != NULL) {
        execute(command[0], command);
        fail_executing(command[0], command[0]);
    }
    if (command[0][0] != '\0')
        search(command, path_of(environment), tried);
    else
        errno = ENOENT;
    fail_executing(command[0], tried);
}
