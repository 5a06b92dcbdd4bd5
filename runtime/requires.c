#include "requires.h"

#include "fail.h"

#include <stddef.h>
#include <string.h>

/* How long the part of a library's name is that its versions have in common: libmpi of libmpi.so.12;
   all of a name that has no version of that kind. */
static size_t stem(const char *name)
{
    size_t length = strlen(name);

    for (const char *at = strstr(name, ".so"); at != NULL; at = strstr(at + 1, ".so"))
        if (at[3] == '.' || at[3] == '\0')
            length = (size_t)(at - name);
    return length;
}

static int has_stem_of(const char *name, const char *other)
{
    size_t length = stem(other);

    return stem(name) == length && strncmp(name, other, length) == 0;
}

static int is_among(const char *name, const char *const *names)
{
    for (; *names != NULL; names++)
        if (strcmp(*names, name) == 0)
            return 1;
    return 0;
}

int requires_differ(const char *const *libs, const char *const *requires,
                    struct mismatch *mismatch)
{
    for (size_t at = 0; libs != NULL && requires != NULL && requires[at] != NULL; at++) {
        const char *other = NULL;
        int served = 0;

        for (const char *const *lib = libs; *lib != NULL && !served; lib++) {
            if (!has_stem_of(*lib, requires[at]))
                continue;
            /* A module may bring several versions, and an image's programs need several. */
            served = is_among(*lib, requires);
            other = *lib;
        }
        if (other != NULL && !served) {
            *mismatch = (struct mismatch){requires[at], other};
            return 1;
        }
    }
    return 0;
}

void requires_check(const char *const *libs, const char *module, const char *const *requires)
{
    struct mismatch mismatch;

    if (!requires_differ(libs, requires, &mismatch))
        return;
    fail(0,
         hint("take an image that was built with %s, or launch without the module: --module=none",
              mismatch.wanted),
         "the module '%s' is for programs that need '%s', and the image's need '%s'", module,
         mismatch.wanted, mismatch.found);
}
