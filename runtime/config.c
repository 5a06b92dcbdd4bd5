#include "config.h"

#include "fail.h"
#include "files.h"
#include "settings.h"

#include <stdlib.h>
#include <string.h>

#define NODE_FILE SYSCONFDIR "/shifter/udiRoot.conf"

/* Cut the next line from `*text`: one that ends with a backslash is joined to the next, by
   blanks, but a comment is not.  `*line` is the number of the next one. */
static char *next_line(char **text, unsigned *line)
{
    char *start = *text, *end = start;

    start += strspn(start, " \t");
    for (;; end++) {
        end += strcspn(end, "\n");
        ++*line;
        if (*end == '\0' || end == *text || end[-1] != '\\' || *start == '#')
            break;
        end[-1] = end[0] = ' ';
    }
    *text = *end == '\n' ? end + 1 : end;
    *end = '\0';
    return trim(start);
}

/* Take `module_NAME_KEY` apart; `key` becomes KEY. */
static struct module *find_module(struct config *config, char **key, struct complaint *why)
{
    char *name = *key + strlen("module_"), *end = strchr(name, '_');
    struct module *module;

    if (end == NULL) {
        complain(why, "write module_NAME_KEY=VALUE", "unknown key: '%.200s'", *key);
        return NULL;
    }
    *end = '\0';
    module = module_named(&config->modules, name);
    if (module == NULL)
        complain(why, "a name has neither '_' nor '/', '.' in front, nor blanks",
                 "no name of a module: '%.200s'", name);
    *key = end + 1;
    return module;
}

/* Name a key that does nothing, to who asked for it. */
static void name_idle(const struct config *config, const struct key *key, const char *written,
                      unsigned line)
{
    if (config->checked != NULL && (key->kind == KEY_NO_EFFECT || key->kind == KEY_DEPRECATED))
        fprintf(config->checked, "%s:%u: '%s' %s: %s\n", config->path, line, written,
                key->kind == KEY_DEPRECATED ? "is deprecated" : "has no effect", key->why);
}

static int complain_of_key(const struct module *module, const char *name, const char *nearest,
                           struct complaint *why)
{
    char before[96] = "", advice[256];

    if (module != NULL)
        snprintf(before, sizeof before, "module_%s_", module->name);
    snprintf(advice, sizeof advice, "did you mean '%s%s'?", before, nearest);
    return complain(why, advice, "unknown key: '%s%.200s'", before, name);
}

/* A module's key that Shifter would pass over for a letter in the other case, as its own example has
   one, is what it looks like. */
static const struct key *find_key(const struct config *config, const struct key *keys,
                                  const char *name, unsigned line)
{
    const struct key *key = key_find(keys, name);

    if (key != NULL || keys != module_keys)
        return key;
    key = key_find_in_any_case(keys, name);
    if (key != NULL && config->checked != NULL)
        fprintf(config->checked, "%s:%u: '%s' is taken for '%s'\n", config->path, line, name,
                key->name);
    return key;
}

static int read_line(struct config *config, char *line, struct complaint *why)
{
    char *equals = strchr(line, '='), *name;
    struct module *module = NULL;
    const struct key *keys = file_keys, *key;

    if (equals == NULL)
        return complain(why, "write KEY=VALUE; a comment begins with '#'",
                        "no '=' in the line: '%.200s'", line);
    *equals = '\0';
    name = trim(line);
    if (strncmp(name, "module_", strlen("module_")) == 0) {
        module = find_module(config, &name, why);
        if (module == NULL)
            return -1;
        keys = module_keys;
    }
    key = find_key(config, keys, name, why->line);
    if (key == NULL)
        return complain_of_key(module, name, key_nearest(keys, name)->name, why);
    name_idle(config, key, name, why->line);
    return module != NULL ? setting_of_module(module, key, trim(equals + 1), why)
                          : setting_of_file(config, key, trim(equals + 1), why);
}

int config_parse(struct config *config, char *text, struct complaint *why)
{
    unsigned next = 1;

    while (*text != '\0') {
        char *line;

        why->line = next;
        line = next_line(&text, &next);
        if (line[0] != '\0' && line[0] != '#' && read_line(config, line, why) < 0 &&
            !complaint_listed(why))
            return -1;
    }
    return 0;
}

static const char *named_by(const char *variable)
{
    const char *value = getenv(variable);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* The file of somebody who has his own store, or NULL. */
static const char *users_file(char path[PATH_MAX])
{
    const char *home = named_by("HOME"), *configs = named_by("XDG_CONFIG_HOME");

    if (configs != NULL && configs[0] == '/')
        path_format(path, "%s/shifter-lite/udiRoot.conf", configs);
    else if (home != NULL && home[0] == '/')
        path_format(path, "%s/.config/shifter-lite/udiRoot.conf", home);
    else
        return NULL;
    return path;
}

enum presence { DEMANDED, EXPECTED, PERHAPS };

/* Read the file `path`; 0 if it need not be there, and is not.  Of one that is only perhaps there,
   in what the caller calls his home, it is no error either that he may not look. */
static int read_file(struct config *config, const char *path, enum presence presence)
{
    struct complaint why = {0, "", ""};
    size_t length;
    char *text = bytes_read(path, &length);

    if (text == NULL) {
        if (presence != DEMANDED && (errno == ENOENT || errno == ENOTDIR))
            return 0;
        if (presence == PERHAPS && errno == EACCES)
            return 0;
        fail(errno, NULL, "cannot read '%s'", path);
    }
    config->path = must_copy(path);
    config->text_hash = bytes_hash(text, length);
    if (strlen(text) != length)
        fail(0, NULL, "'%s' is no text", path);
    if (config->checked != NULL)
        complaints_list(config->path);
    if (config_parse(config, text, &why) < 0)
        fail_complaining(&why, path);
    return 1;
}

void config_read(struct config *config)
{
    const char *chosen = named_by("SHIFTER_CONFIG");
    char path[PATH_MAX];

    if (chosen != NULL) {
        read_file(config, chosen, DEMANDED);
        return;
    }
    if (!read_file(config, NODE_FILE, EXPECTED) && users_file(path) != NULL)
        read_file(config, path, PERHAPS);
}

void config_read_file(struct config *config, const char *path)
{
    read_file(config, path, DEMANDED);
}
