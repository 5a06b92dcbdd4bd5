/* What readers of requests and of configurations must keep to, whatever they are given. */
#ifndef SHIFTER_PARSERS_H
#define SHIFTER_PARSERS_H

#include "../config.h"
#include "../envfile.h"
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void release_words(struct words *words)
{
    free(words->list);
    *words = (struct words){NULL, 0, 0};
}

static void release_edits(struct edits *edits)
{
    release_words(&edits->set);
    release_words(&edits->append);
    release_words(&edits->prepend);
    release_words(&edits->unset);
}

static void release_config(struct config *config)
{
    for (size_t at = 0; at < config->modules.count; at++) {
        struct module *module = &config->modules.list[at];

        release_edits(&module->env);
        free(module->fs.list);
        release_words(&module->conflicts);
        release_words(&module->requires);
    }
    free(config->modules.list);
    release_edits(&config->env);
    free(config->fs.list);
    free(config->users.list);
    free(config->cache.types.list);
}

static void check_path(const char *path)
{
    size_t length = strlen(path);

    CHECK(path[0] == '/' && strstr(path, "//") == NULL && strstr(path, "/./") == NULL);
    CHECK(strstr(path, "/../") == NULL && (length == 1 || path[length - 1] != '/'));
}

static void check_volumes(const struct volumes *volumes, enum volume_asker asker)
{
    for (size_t at = 0; at < volumes->count; at++) {
        const struct volume *one = &volumes->list[at];

        check_path(one->from);
        check_path(one->to);
        CHECK(volume_forbidden(one->to, asker) == NULL);
        CHECK(one->cache == (one->cache_size != 0));
    }
}

/* A user's if it is of odd length, else a site's. */
static void try_volume(char *text, size_t length)
{
    enum volume_asker asker = length % 2 ? ASKED_BY_USER : ASKED_BY_SITE;
    struct complaint why = {0, "", ""};
    struct volumes volumes = {NULL, 0, 0};

    if (volumes_parse(&volumes, text, asker, &why) == 0)
        check_volumes(&volumes, asker);
    else
        CHECK(why.fact[0] != '\0' && why.advice[0] != '\0');
    free(volumes.list);
}

static void try_env_file(char *text, size_t length)
{
    struct complaint why = {0, "", ""};
    struct words words = {NULL, 0, 0};

    (void)length;
    if (envfile_parse(&words, text, &why) == 0)
        for (size_t at = 0; at < words.count; at++)
            CHECK(strchr(words.list[at], '=') > words.list[at]);
    free(words.list);
}

static void try_config(char *text, size_t length)
{
    struct complaint why = {0, "", ""};
    struct config config;
    const struct module **chosen;
    char names[] = "a,mpi,x";

    (void)length;
    memset(&config, 0, sizeof config);
    if (config_parse(&config, text, &why) == 0) {
        check_volumes(&config.fs, ASKED_BY_SITE);
        modules_choose(&config.modules, names, &chosen, &why);
        free(chosen);
    } else {
        CHECK(why.line > 0 && why.fact[0] != '\0');
    }
    release_config(&config);
}

#endif
