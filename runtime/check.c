#include "check.h"

#include "config.h"
#include "fail.h"
#include "files.h"
#include "mounts.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void begin_notice(const struct config *config, unsigned line)
{
    if (line != 0)
        printf("%s:%u: ", config->path, line);
    else
        printf("%s: ", config->path);
}

static int check_path(const struct config *config, unsigned line, const char *path)
{
    if (path == NULL || access(path, F_OK) == 0)
        return 1;
    begin_notice(config, line);
    printf("'%s' is not on this node\n", path);
    return 0;
}

/* Shifter's own imagePath is a directory of images, too, but of others. */
static void check_store(const struct config *config)
{
    if (config->store == NULL || !check_path(config, 0, config->store))
        return;
    if (access(path_join(config->store, "index"), F_OK) < 0 && errno == ENOENT) {
        begin_notice(config, 0);
        printf("'%s' is not a store yet: shifter-admin init, in an empty directory\n",
               config->store);
    }
}

/* A mount that the node makes in a private copy of an automounter's directory never arrives: there
   the kernel says "Too many levels of symbolic links". */
static void check_automount(const struct config *config, const struct volume *volume)
{
    const char *trap;

    if (volume->slave || (config->slave && !volume->private))
        return;
    trap = mounts_find_automount(volume->from);
    if (trap == NULL)
        return;
    begin_notice(config, volume->line);
    printf("'%s' is mounted on demand (autofs), which does not work in a private mount: "
           "write %s:%s:slave\n",
           trap, volume->from, volume->to);
}

static void check_volume(const struct config *config, const struct volume *volume)
{
    struct complaint why = {volume->line, "", ""};

    if (volume->cache) {
        if (volume_check_cache(volume, &config->cache, &why) < 0)
            complaint_listed(&why);
        return;
    }
    if (access(volume->from, F_OK) == 0)
        check_automount(config, volume);
    else if (!volume->optional)
        check_path(config, volume->line, volume->from);
}

static void check_volumes(const struct config *config, const struct volumes *volumes)
{
    for (size_t at = 0; at < volumes->count; at++)
        check_volume(config, &volumes->list[at]);
}

/* Files that containers will lack. */
static void check_etc_file(const struct config *config, const char *path)
{
    struct stat status;

    if (stat(path, &status) < 0 || !S_ISREG(status.st_mode))
        return;
    if (status.st_size > SITE_FILE_MAX) {
        begin_notice(config, 0);
        printf("'%s' is larger than %d MiB: no container has it\n", path, SITE_FILE_MAX >> 20);
    } else if ((status.st_mode & S_IROTH) == 0) {
        begin_notice(config, 0);
        printf("'%s' cannot be read by all users: their containers lack it\n", path);
    }
}

static void check_etc_files(const struct config *config)
{
    DIR *files = config->etc_path != NULL ? opendir(config->etc_path) : NULL;
    struct dirent *entry;

    while (files != NULL && (entry = readdir(files)) != NULL)
        check_etc_file(config, path_join(config->etc_path, entry->d_name));
    if (files != NULL)
        closedir(files);
}

/* Whether these modules can be chosen together. */
static int can_choose(const struct config *config, const char *names)
{
    struct complaint why = {config->default_line, "", ""};
    const struct module **chosen;

    if (modules_choose(&config->modules, must_copy(names), &chosen, &why) == 0)
        return 1;
    complaint_listed(&why);
    return 0;
}

/* A default that cannot be had ends every launch: each that is unknown, and each pair of those that
   exclude each other. */
static void check_defaults(const struct config *config)
{
    struct words names = {NULL, 0, 0};
    size_t known = 0;

    if (config->default_modules == NULL)
        return;
    words_split(&names, must_copy(config->default_modules), ",");
    for (size_t at = 0; at < names.count; at++)
        if (can_choose(config, names.list[at]))
            names.list[known++] = names.list[at];
    for (size_t at = 0; at < known; at++)
        for (size_t before = 0; before < at; before++)
            can_choose(config, hint("%s,%s", names.list[before], names.list[at]));
}

/* A hook is named as it is in the container: where the site brings it, it is on this node. */
static void check_userhook(const struct config *config, const struct module *module)
{
    const char *of_site = "/opt/udiImage";
    const char *of_module = path_join("/opt/udiImage/modules", module->name);

    if (module->userhook == NULL)
        return;
    if (module->copy_path != NULL && path_within(module->userhook, of_module))
        check_path(config, 0,
                   path_join(module->copy_path, module->userhook + strlen(of_module)));
    else if (config->opt_udi_image != NULL && path_within(module->userhook, of_site))
        check_path(config, 0,
                   path_join(config->opt_udi_image, module->userhook + strlen(of_site)));
}

static void check_places(const struct config *config)
{
    check_store(config);
    check_path(config, 0, config->etc_path);
    check_etc_files(config);
    check_path(config, 0, config->opt_udi_image);
    check_path(config, 0, config->pre_hook);
    check_path(config, 0, config->post_hook);
    check_volumes(config, &config->fs);
    for (size_t at = 0; at < config->modules.count; at++) {
        check_path(config, 0, config->modules.list[at].copy_path);
        check_path(config, 0, config->modules.list[at].roothook);
        check_userhook(config, &config->modules.list[at]);
        check_volumes(config, &config->modules.list[at].fs);
    }
}

int check_config(const char *path)
{
    struct config config = {.checked = stdout};

    if (path != NULL)
        config_read_file(&config, path);
    else
        config_read(&config);
    if (config.path == NULL)
        printf("there is no udiRoot.conf\n");
    check_places(&config);
    check_defaults(&config);
    if (fflush(stdout) != 0 || ferror(stdout))
        fail(errno, NULL, "cannot write to standard output");
    return complaints_listed() > 0 ? EXIT_SHIFTER : EXIT_SUCCESS;
}
