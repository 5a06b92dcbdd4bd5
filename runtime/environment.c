#include "environment.h"

#include "files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static size_t count(const char *const *list)
{
    size_t length = 0;

    while (list[length] != NULL)
        length++;
    return length;
}

static char **find(char **environment, const char *entry)
{
    size_t length = strcspn(entry, "=") + 1;

    while (*environment != NULL && strncmp(*environment, entry, length) != 0)
        environment++;
    return environment;
}

/* What is no NAME=value cannot be set; there is room for one more entry. */
static void set(char **environment, const char *entry)
{
    if (entry[0] != '=' && strchr(entry, '=') != NULL)
        *find(environment, entry) = (char *)entry;
}

static const char *pair(const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 2;
    char *entry = must_allocate(1, size);

    snprintf(entry, size, "%s=%s", name, value);
    return entry;
}

char **environment_build(char *const *caller, const struct record *record, const char *request)
{
    size_t callers = count((const char *const *)caller), images = count(record->env);
    char **environment = must_allocate(callers + images + 4, sizeof *environment);

    memcpy(environment, caller, callers * sizeof *environment);
    for (size_t at = 0; at < images; at++)
        /* The caller's home is bound in; the image's is somebody else's. */
        if (strncmp(record->env[at], "HOME=", strlen("HOME=")) != 0)
            set(environment, record->env[at]);
    set(environment, pair("SHIFTER_IMAGE", record->id));
    set(environment, pair("SHIFTER_IMAGEREQUEST", request));
    if (*find(environment, DEFAULT_PATH) == NULL)
        set(environment, DEFAULT_PATH);
    return environment;
}
