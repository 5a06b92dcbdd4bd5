#include "check.h"

#include "config.h"
#include "fail.h"
#include "files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_path(const struct config *config, unsigned line, const char *path)
{
    if (path == NULL || access(path, F_OK) == 0)
        return;
    if (line != 0)
        printf("%s:%u: '%s' is not on this node\n", config->path, line, path);
    else
        printf("%s: '%s' is not on this node\n", config->path, path);
}

static void check_volumes(const struct config *config, const struct volumes *volumes)
{
    for (size_t at = 0; at < volumes->count; at++) {
        const struct volume *volume = &volumes->list[at];

        if (!volume->optional && !volume->cache)
            check_path(config, volume->line, volume->from);
    }
}

/* Files that containers will lack. */
static void check_etc_files(const char *directory)
{
    DIR *files = directory != NULL ? opendir(directory) : NULL;
    struct dirent *entry;

    while (files != NULL && (entry = readdir(files)) != NULL) {
        const char *path = path_join(directory, entry->d_name);
        struct stat status;

        if (stat(path, &status) < 0 || !S_ISREG(status.st_mode))
            continue;
        if (status.st_size > SITE_FILE_MAX)
            printf("'%s' is larger than %d MiB: no container has it\n", path, SITE_FILE_MAX >> 20);
        else if ((status.st_mode & S_IROTH) == 0)
            printf("'%s' cannot be read by all users: their containers lack it\n", path);
    }
    if (files != NULL)
        closedir(files);
}

/* A default that cannot be had ends every launch. */
static void check_modules(const struct config *config)
{
    struct complaint why = {0, "", ""};
    const struct module **chosen;

    if (config->default_modules == NULL)
        return;
    if (modules_choose(&config->modules, must_copy(config->default_modules), &chosen, &why) < 0)
        fail_complaining(&why, config->path);
    free(chosen);
}

void check_config(const char *path)
{
    struct config config = {.checked = stdout};

    if (path != NULL)
        config_read_file(&config, path);
    else
        config_read(&config);
    if (config.path == NULL)
        printf("there is no udiRoot.conf\n");
    check_path(&config, 0, config.store);
    check_path(&config, 0, config.etc_path);
    check_etc_files(config.etc_path);
    check_path(&config, 0, config.opt_udi_image);
    check_volumes(&config, &config.fs);
    for (size_t at = 0; at < config.modules.count; at++) {
        check_path(&config, 0, config.modules.list[at].copy_path);
        check_volumes(&config, &config.modules.list[at].fs);
    }
    check_modules(&config);
    if (fflush(stdout) != 0 || ferror(stdout))
        fail(errno, NULL, "cannot write to standard output");
}
