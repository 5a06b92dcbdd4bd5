#include "modules.h"

#include "files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static struct module *find(const struct modules *modules, const char *name)
{
    for (size_t at = 0; at < modules->count; at++)
        if (strcmp(modules->list[at].name, name) == 0)
            return &modules->list[at];
    return NULL;
}

/* A module's name is that of a directory in the container. */
static int is_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && name[strcspn(name, "/,; \t")] == '\0' &&
           strcasecmp(name, "none") != 0 && strlen(name) <= 64;
}

struct module *module_named(struct modules *modules, const char *name)
{
    struct module *module = find(modules, name);

    if (module != NULL)
        return module;
    if (!is_name(name))
        return NULL;
    modules->list = must_grow(modules->list, modules->count, &modules->room, sizeof *modules->list);
    module = &modules->list[modules->count++];
    memset(module, 0, sizeof *module);
    module->name = name;
    return module;
}

/* The names of all that may be chosen, for a hint. */
static void list_names(const struct modules *modules, char text[COMPLAINT_MAX])
{
    size_t length = 0;

    text[0] = '\0';
    for (size_t at = 0; at < modules->count; at++) {
        const struct module *module = &modules->list[at];
        size_t more = strlen(module->name) + 2;

        if (module->disabled || length + more >= COMPLAINT_MAX)
            continue;
        length = (size_t)(stpcpy(stpcpy(text + length, length > 0 ? ", " : ""), module->name) -
                          text);
    }
}

static int check_conflicts(const struct module *const *chosen, const struct module *last,
                           struct complaint *why)
{
    for (; *chosen != NULL; chosen++)
        if (words_have(&(*chosen)->conflicts, last->name) ||
            words_have(&last->conflicts, (*chosen)->name))
            return complain(why, "choose one of them with --module",
                            "cannot load conflicting modules '%s' and '%s'", last->name,
                            (*chosen)->name);
    return 0;
}

static int is_chosen(const struct module *const *chosen, const struct module *module)
{
    while (*chosen != NULL && *chosen != module)
        chosen++;
    return *chosen != NULL;
}

int modules_choose(const struct modules *modules, char *names, const struct module ***chosen,
                   struct complaint *why)
{
    char *rest = NULL, known[COMPLAINT_MAX];
    size_t count = 0;

    *chosen = must_allocate(modules->count + 1, sizeof(const struct module *));
    if (names == NULL || strcasecmp(trim(names), "none") == 0)
        return 0;
    for (char *name = strtok_r(names, ",", &rest); name != NULL;
         name = strtok_r(NULL, ",", &rest)) {
        const struct module *module;

        name = trim(name);
        if (name[0] == '\0')
            continue;
        module = find(modules, name);
        if (module == NULL || module->disabled) {
            list_names(modules, known);
            complain(why, "", "unknown shifter module: '%.200s'", name);
            snprintf(why->advice, sizeof why->advice, "%s%.700s",
                     known[0] != '\0' ? "there are: " : "the site offers none", known);
            return -1;
        }
        if (is_chosen(*chosen, module))
            continue;
        if (check_conflicts(*chosen, module, why) < 0)
            return -1;
        (*chosen)[count++] = module;
    }
    return 0;
}
