#include "id_prefix.h"

#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Whether `key` is in the index: a file may lie there unpublished. */
static enum index_answer check(int index, const char *key, struct id_keys *found, const char **why)
{
    struct value value;
    enum index_answer answer = index_find(index, key, &value);

    free(value.bytes);
    *why = value.why;
    if (answer == INDEX_ABSENT)
        return INDEX_FOUND;
    if (answer == INDEX_FOUND && found->count++ < ID_KEYS_SHOWN)
        memcpy(found->keys[found->count - 1], key, ID_KEY_LENGTH + 1);
    return answer;
}

/* Make the key of the image that is in the file `name`; 0 if none is. */
static int read_name(const char *name, char key[ID_KEY_LENGTH + 1])
{
    size_t digits = strspn(name, "0123456789abcdef");

    if (digits != ID_DIGITS || strcmp(name + digits, ".squashfs") != 0)
        return 0;
    memcpy(key, "id:", ID_KEY_LENGTH - ID_DIGITS);
    memcpy(key + ID_KEY_LENGTH - ID_DIGITS, name, ID_DIGITS);
    key[ID_KEY_LENGTH] = '\0';
    return 1;
}

static enum index_answer read_names(DIR *directory, int index, const char *prefix,
                                    struct id_keys *found, const char **why)
{
    enum index_answer answer = INDEX_FOUND;
    struct dirent *entry;
    char key[ID_KEY_LENGTH + 1];

    while (answer == INDEX_FOUND && (errno = 0, (entry = readdir(directory)) != NULL))
        if (read_name(entry->d_name, key) && strncmp(key, prefix, strlen(prefix)) == 0)
            answer = check(index, key, found, why);
    return answer == INDEX_FOUND && errno != 0 ? INDEX_UNREADABLE : answer;
}

enum index_answer id_prefix_find(const char *store, int index, const char *prefix,
                                 struct id_keys *found, const char **why)
{
    char path[PATH_MAX];
    DIR *directory;
    enum index_answer answer;
    int error;

    *why = "";
    found->count = 0;
    path_format(path, "%s/images/%.2s", store, prefix + ID_KEY_LENGTH - ID_DIGITS);
    directory = opendir(path);
    if (directory == NULL)
        return errno == ENOENT ? INDEX_FOUND : INDEX_UNREADABLE;
    answer = read_names(directory, index, prefix, found, why);
    error = errno;
    closedir(directory);
    errno = error;
    return answer;
}
