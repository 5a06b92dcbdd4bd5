#include "mounts.h"

#include "files.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define AUTOFS_MAGIC 0x0187 /* linux/auto_fs.h */

/* Cut the next word off a line of mountinfo, in which blanks within a word are written as \040. */
static char *next_word(char **line)
{
    char *word = *line, *to = word, *from = word;

    for (; *from != ' ' && *from != '\n' && *from != '\0'; from++)
        if (from[0] == '\\' && strspn(from + 1, "01234567") >= 3) {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + from[3] - '0');
            from += 3;
        } else {
            *to++ = *from;
        }
    *line = *from == ' ' ? from + 1 : from;
    *to = '\0';
    return word;
}

/* The mount point that a line of mountinfo names, if its filesystem is of that type; else NULL. */
static char *place_of_type(char *line, const char *type)
{
    char *place = NULL;

    for (int field = 0; field < 5; field++)
        place = next_word(&line);
    while (*line != '\0' && strcmp(next_word(&line), "-") != 0)
        ;
    return strcmp(next_word(&line), type) == 0 ? place : NULL;
}

static char *find_beneath(FILE *mounts, const char *path)
{
    char *line = NULL, *place, *found = NULL;
    size_t size = 0;

    while (found == NULL && getline(&line, &size, mounts) >= 0) {
        place = place_of_type(line, "autofs");
        if (place != NULL && path_within(place, path))
            found = must_copy(place);
    }
    free(line);
    return found;
}

/* Whether `path` is in an automounter's own filesystem, without using it: that would mount on it. */
static int is_automounters(const char *path)
{
    int place = open(path, O_PATH | O_CLOEXEC);
    struct statfs status;
    int is = place >= 0 && fstatfs(place, &status) == 0 && status.f_type == AUTOFS_MAGIC;

    if (place >= 0)
        close(place);
    return is;
}

const char *mounts_find_automount(const char *path)
{
    char real[PATH_MAX], above[PATH_MAX];
    const char *found;
    FILE *mounts;

    if (realpath(path, real) == NULL)
        return NULL;
    path_format(above, "%s", real);
    *strrchr(above, '/') = '\0';
    /* In such a directory all names come and go, whatever is mounted just now. */
    if (is_automounters(real) || (above[0] != '\0' && is_automounters(above)))
        return must_copy(real);
    mounts = fopen("/proc/self/mountinfo", "re");
    if (mounts == NULL)
        return NULL;
    found = find_beneath(mounts, real);
    fclose(mounts);
    return found;
}
