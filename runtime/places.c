#include "places.h"

#include "ambient.h"
#include "fail.h"
#include "files.h"
#include "identity.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void place_of_store(const struct job *job, const struct config *config, char store[PATH_MAX])
{
    const char *found = job->store != NULL ? job->store : config->store;
    const char *data = ambient("XDG_DATA_HOME");
    char cwd[PATH_MAX];

    if (found != NULL) {
        if (found[0] == '/') {
            path_format(store, "%s", found);
        } else {
            if (getcwd(cwd, sizeof cwd) == NULL)
                fail(errno, NULL, "cannot tell where the store '%s' is", found);
            path_format(store, "%s/%s", cwd, found);
        }
    } else if (data != NULL && data[0] == '/') {
        /* The specification of these variables says that relative ones are void. */
        path_format(store, "%s/shifter-lite", data);
    } else if (ambient("HOME") != NULL) {
        path_format(store, "%s/.local/share/shifter-lite", ambient("HOME"));
    } else {
        fail(0, "set SHIFTER_STORE or --store", "no store was named, and HOME is not set");
    }
    if (store[0] != '/')
        fail(0, "set SHIFTER_STORE or --store", "not an absolute path: '%s'", store);
}

static int is_directory(const char *path, int *own)
{
    struct stat status;

    if (path == NULL || path[0] != '/' || stat(path, &status) < 0 || !S_ISDIR(status.st_mode))
        return 0;
    *own = status.st_uid == geteuid();
    return 1;
}

const char *place_of_home(int *own)
{
    const char *home = getenv("HOME");
    struct identity who;

    if (is_directory(home, own))
        return home;
    identity_begin(&who);
    identity_read(&who);
    return is_directory(who.home, own) ? who.home : NULL;
}

const char *place_of_caller(char cwd[PATH_MAX], int *error)
{
    int ignored;

    errno = 0;
    if (getcwd(cwd, PATH_MAX) != NULL && is_directory(cwd, &ignored))
        return cwd;
    *error = errno != 0 ? errno : ENOENT;
    return NULL;
}

const char *place_in_callers_words(const char *cwd)
{
    const char *words = ambient("PWD");
    struct stat here, there;
    char *path;

    if (words == NULL || stat(cwd, &here) < 0 || stat(words, &there) < 0 ||
        here.st_dev != there.st_dev || here.st_ino != there.st_ino)
        return NULL;
    path = must_copy(words);
    /* What a name in /proc means depends on who asks. */
    return path_normalise(path) == NULL && !path_within(path, "/proc") ? path : NULL;
}
