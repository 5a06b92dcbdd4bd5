#include "settings.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r"

static int read_switch(int *place, const struct key *key, const char *value, struct complaint *why)
{
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        return complain(why, "write 0 or 1", "'%s' is neither 0 nor 1: '%.200s'", key->name,
                        value);
    *place = value[0] == '1';
    return 0;
}

static int read_count(uint64_t *place, const struct key *key, const char *value,
                      struct complaint *why)
{
    size_t digits = strspn(value, "0123456789");

    if (digits == 0 || digits > 9 || value[digits] != '\0')
        return complain(why, "write a number, or 0 for all", "'%s' is no number: '%.200s'",
                        key->name, value);
    *place = strtoull(value, NULL, 10);
    return 0;
}

static int read_path(const char **place, const struct key *key, char *value, struct complaint *why)
{
    const char *reason = value[0] == '\0' ? NULL : path_normalise(value);

    if (reason != NULL)
        return complain(why, "write a path that begins with '/'", "'%s' is %s: '%.200s'",
                        key->name, reason, value);
    *place = value[0] == '\0' ? NULL : value;
    return 0;
}

/* Add words to an edit of the environment; all but those to be unset are NAME=value. */
static int read_edit(struct words *words, const struct key *key, char *value,
                     struct complaint *why)
{
    char *rest = NULL;

    for (char *word = strtok_r(value, BLANKS, &rest); word != NULL;
         word = strtok_r(NULL, BLANKS, &rest)) {
        char *equals = strchr(word, '=');

        if (equals == word || (equals == NULL && key->kind != KEY_ENV_UNSET)) {
            complain(why, key->kind == KEY_ENV_UNSET ? "write NAME" : "write NAME=VALUE",
                     "'%s' holds '%.200s'", key->name, word);
            if (complaint_listed(why))
                continue;
            return -1;
        }
        /* As in Shifter a value behind a name to be unset says nothing. */
        if (equals != NULL && key->kind == KEY_ENV_UNSET)
            *equals = '\0';
        words_add(words, word);
    }
    return 0;
}

/* Keys that files and modules have in common; 1 if `key` is none of them. */
static int set_common(struct volumes *fs, struct edits *env, const struct key *key, char *value,
                      struct complaint *why)
{
    switch (key->kind) {
    case KEY_FS:
        return volumes_parse(fs, value, ASKED_BY_SITE, why);
    case KEY_ENV:
        return read_edit(&env->set, key, value, why);
    case KEY_ENV_APPEND:
        return read_edit(&env->append, key, value, why);
    case KEY_ENV_PREPEND:
        return read_edit(&env->prepend, key, value, why);
    case KEY_ENV_UNSET:
        return read_edit(&env->unset, key, value, why);
    default:
        return 1;
    }
}

static int set_etc(struct config *config, const struct key *key, char *value,
                   struct complaint *why)
{
    switch (key->kind) {
    case KEY_ETC_PATH:
        return read_path(&config->etc_path, key, value, why);
    case KEY_POPULATE_ETC:
        return read_switch(&config->populate_etc, key, value, why);
    case KEY_USERS_TO_IMPORT:
        words_split(&config->users, value, BLANKS);
        return 0;
    case KEY_MAX_GROUP_COUNT:
        return read_count(&config->group_count, key, value, why);
    default:
        return 0;
    }
}

static int set_hook(struct config *config, const struct key *key, char *value,
                    struct complaint *why)
{
    switch (key->kind) {
    case KEY_UDI_MOUNT:
        /* Where there is no such directory, as on most nodes, it does not count. */
        config->udi_mount = value[0] == '/' ? value : NULL;
        return 0;
    case KEY_PRE_HOOK:
        return read_path(&config->pre_hook, key, value, why);
    case KEY_POST_HOOK:
        return read_path(&config->post_hook, key, value, why);
    default:
        return set_etc(config, key, value, why);
    }
}

static int set_image_type(const char *value, struct complaint *why)
{
    if (strcmp(value, "docker") != 0)
        return complain(why, "write defaultImageType=docker",
                        "there are no images of the type '%.200s'", value);
    return 0;
}

static int set_propagation(struct config *config, const char *value, struct complaint *why)
{
    if (strcmp(value, "private") != 0 && strcmp(value, "slave") != 0)
        return complain(why, "write private or slave",
                        "'mountPropagationStyle' is neither private nor slave: '%.200s'", value);
    config->slave = value[0] == 's';
    return 0;
}

static void lower(char *text)
{
    for (; *text != '\0'; text++)
        *text = (char)tolower((unsigned char)*text);
}

static int set_size_limit(struct config *config, const char *value, struct complaint *why)
{
    config->cache.size_limit = 0;
    if (strcmp(value, "0") != 0 && size_parse(value, &config->cache.size_limit) < 0)
        return complain(why, "write a number of bytes, or one with K, M, G, T, P or E: 1.5T",
                        "'perNodeCacheSizeLimit' is no size: '%.200s'", value);
    return 0;
}

int setting_of_file(struct config *config, const struct key *key, char *value,
                    struct complaint *why)
{
    int common = set_common(&config->fs, &config->env, key, value, why);

    if (common <= 0)
        return common;
    switch (key->kind) {
    case KEY_IMAGE_PATH:
        config->store = value[0] != '\0' ? value : NULL;
        return 0;
    case KEY_DEFAULT_IMAGE_TYPE:
        return set_image_type(value, why);
    case KEY_DEFAULT_MODULES:
        config->default_modules = value;
        config->default_line = why->line;
        return 0;
    case KEY_OPT_UDI_IMAGE:
        return read_path(&config->opt_udi_image, key, value, why);
    case KEY_PROPAGATION:
        return set_propagation(config, value, why);
    case KEY_CACHE_SIZE_LIMIT:
        return set_size_limit(config, value, why);
    case KEY_CACHE_TYPES:
        lower(value);
        words_split(&config->cache.types, value, BLANKS ",");
        return 0;
    case KEY_LENIENT_WORKDIR:
        return read_switch(&config->lenient_workdir, key, value, why);
    case KEY_CACHE_PATH:
        return read_path(&config->cache.path, key, value, why);
    case KEY_MKFS_XFS:
        /* Launchers run no such program: setupRoot looks whether it is one. */
        config->cache.mkfs_xfs = value[0] != '\0' ? value : NULL;
        return 0;
    default:
        return set_hook(config, key, value, why);
    }
}

int setting_of_module(struct module *module, const struct key *key, char *value,
                      struct complaint *why)
{
    int common = set_common(&module->fs, &module->env, key, value, why), enabled = 1;

    if (common <= 0)
        return common;
    switch (key->kind) {
    case KEY_COPY_PATH:
        return read_path(&module->copy_path, key, value, why);
    case KEY_USERHOOK:
        return read_path(&module->userhook, key, value, why);
    case KEY_ROOTHOOK:
        return read_path(&module->roothook, key, value, why);
    case KEY_CONFLICT:
        words_split(&module->conflicts, value, BLANKS ",");
        return 0;
    case KEY_REQUIRES:
        words_split(&module->requires, value, BLANKS ",");
        return 0;
    case KEY_ENABLED:
        if (read_switch(&enabled, key, value, why) < 0)
            return -1;
        module->disabled = !enabled;
        return 0;
    default:
        return 0;
    }
}
