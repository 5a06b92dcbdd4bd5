#include "etc.h"

#include "accounts.h"
#include "fail.h"
#include "file_id.h"
#include "files.h"
#include "inside.h"
#include "skeleton.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES_MOST = 1024 };

/* With populateEtcDynamically: names come from files, for nobody else is asked. */
#define NSSWITCH "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n" \
    "networks: files\nservices: files\nprotocols: files\nrpc: files\nethers: files\n" \
    "netgroup: files\naliases: files\n"
#define HOST_CONF "multi on\n"

static void keep(struct etc *etc, const char *name, char *bytes, size_t length)
{
    etc->files = must_grow(etc->files, etc->count, &etc->room, sizeof *etc->files);
    etc->files[etc->count].name = name;
    etc->files[etc->count].bytes = bytes;
    etc->files[etc->count++].length = length;
}

static int is_kept(const struct etc *etc, const char *name)
{
    for (size_t at = 0; at < etc->count; at++)
        if (strcmp(etc->files[at].name, name) == 0)
            return 1;
    return 0;
}

/* What is no file that can be read is left out. */
static void read_one(struct etc *etc, const char *directory, const char *name)
{
    size_t length;
    char *bytes = bytes_read_most(path_join(directory, name), SITE_FILE_MAX, &length);

    if (bytes != NULL)
        keep(etc, must_copy(name), bytes, length);
    else if (errno == EFBIG)
        warn("'%s/%s' is larger than %d MiB: the container lacks it", directory, name,
             SITE_FILE_MAX >> 20);
}

/* Where hashes of passwords are in /etc, and where programs leave copies of them.  Whether the image
   has one costs the founder of a container the way to the image's server and back, so these are all. */
static const char *const secrets[] = {"shadow", "gshadow", "shadow-", "gshadow-",
                                      "security/opasswd"};
enum { ALWAYS_HIDDEN = 2 };

static int is_secret(const char *name)
{
    for (size_t at = 0; at < sizeof secrets / sizeof secrets[0]; at++)
        if (strcmp(name, secrets[at]) == 0)
            return 1;
    return 0;
}

/* All files of the site's directory; passwd and group are sources, and not laid over. */
static void read_site(struct etc *etc, const char *directory)
{
    DIR *open_directory = opendir(directory);
    struct dirent *entry;

    if (open_directory == NULL)
        fail(errno, "tell the administrator of this node: etcPath",
             "cannot read the directory '%s' of '%s'", directory, etc->config->path);
    while ((entry = readdir(open_directory)) != NULL) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "passwd") == 0 ||
            strcmp(entry->d_name, "group") == 0 || is_secret(entry->d_name))
            continue;
        if (etc->count == FILES_MOST)
            fail(0, NULL, "more than %d files in '%s'", FILES_MOST, directory);
        read_one(etc, directory, entry->d_name);
    }
    closedir(open_directory);
}

static int is_imported(const struct config *config, const struct line *line)
{
    for (size_t at = 0; at < config->users.count; at++)
        if (line_has_name(line, config->users.list[at]))
            return 1;
    return 0;
}

/* The node's lines of the users that the site wants to be known in every container. */
static char *imported_users(const struct config *config, const char *passwd)
{
    char *found = NULL;
    size_t length;
    FILE *out = open_memstream(&found, &length);
    struct line line;

    if (out == NULL)
        fail(errno, NULL, "cannot go on");
    while (line_next(&passwd, PASSWD_FIELDS, &line))
        if (is_imported(config, &line))
            fprintf(out, "%.*s\n", (int)(line.end - line.start), line.start);
    if (fclose(out) != 0)
        fail(errno, NULL, "cannot go on");
    return found;
}

void etc_read(struct etc *etc, const struct config *config, const struct identity *who)
{
    static const char *const hosts[] = {"hosts", "resolv.conf"};

    memset(etc, 0, sizeof *etc);
    etc->config = config;
    if (config->etc_path != NULL && !config->populate_etc)
        read_site(etc, config->etc_path);
    for (size_t at = 0; at < sizeof hosts / sizeof hosts[0]; at++)
        if (!is_kept(etc, hosts[at]))
            read_one(etc, "/etc", hosts[at]);
    if (config->populate_etc) {
        keep(etc, "nsswitch.conf", must_copy(NSSWITCH), strlen(NSSWITCH));
        keep(etc, "host.conf", must_copy(HOST_CONF), strlen(HOST_CONF));
        etc->users = imported_users(config, who->passwd_file);
    }
}

/* The text of a file in the image: as the description has it, which costs nothing, or read; what
   is no readable file there has none. */
static const char *image_text(const char *described, const char *path)
{
    char resolved[PATH_MAX], at[PATH_MAX], shown[PATH_MAX];
    mode_t mode;

    if (described != NULL)
        return described;
    mode = inside_resolve(path, resolved);
    path_format(at, IMAGE_DIR "%s", resolved);
    path_format(shown, "'%s' of the image", path);
    return S_ISREG(mode) ? accounts_read(at, shown, IMAGE_FILE_MAX) : "";
}

static void write_text(const char *place, const char *name, const char *text)
{
    skeleton_file(path_join(place, name), text, strlen(text));
}

/* The site's own file, or NULL: it has none, and that of the node counts. */
static const char *own_source(const struct config *config, const char *name)
{
    const char *path = config->etc_path != NULL ? path_join(config->etc_path, name) : NULL;

    return path != NULL && access(path, F_OK) == 0 ? path : NULL;
}

void etc_name_sources(struct identity *who, const struct config *config)
{
    who->most_groups = (size_t)config->group_count;
    who->passwd_path = own_source(config, "passwd");
    who->group_path = own_source(config, "group");
    who->shows_passwd = who->passwd_path != NULL && !config->populate_etc;
    who->shows_group = who->group_path != NULL && !config->populate_etc;
    who->needs_passwd = who->shows_passwd || (config->populate_etc && config->users.count > 0);
}

/* The caller, the users and groups of etcPath, and those of the image; or, where the site says so,
   the caller and a few of the node's users alone. */
static void write_identity(const struct etc *etc, const struct identity *who,
                           const struct description *description, const char *place)
{
    const char *passwd = etc->users, *group = "";

    if (!etc->config->populate_etc) {
        passwd = image_text(description->passwd, "/etc/passwd");
        group = image_text(description->group, "/etc/group");
    }
    write_text(place, "passwd", identity_passwd(who, passwd));
    write_text(place, "group", identity_group(who, group));
}

/* Lay an empty file over the one that the image's link at `path` leads to: it would show the same by
   its other name.  Returns what `path` is. */
static mode_t hide_behind(const char *path)
{
    char resolved[PATH_MAX];
    mode_t mode = inside_try_resolve(path, resolved);

    if (S_ISREG(mode) && strcmp(path, resolved) != 0 && !inside_is_mounted(resolved))
        skeleton_mount_point(resolved);
    return mode;
}

/* Where the image has the file `name` of /etc, which is at `place`: the directory it is in may be a
   link, which must stay one.  NULL: there is no such directory. */
static char *place_of_secret(const char *place, const char *name)
{
    const char *slash = strrchr(name, '/');
    char directory[PATH_MAX], resolved[PATH_MAX];

    if (slash == NULL)
        return path_join(place, name);
    path_format(directory, "%s/%.*s", place, (int)(slash - name), name);
    return S_ISDIR(inside_try_resolve(directory, resolved)) && !inside_is_mounted(resolved)
               ? path_join(resolved, slash)
               : NULL;
}

void etc_hide(const char *place)
{
    for (size_t at = 0; at < sizeof secrets / sizeof secrets[0]; at++) {
        char *path = place_of_secret(place, secrets[at]);
        mode_t mode = path != NULL ? hide_behind(path) : 0;

        if (at < ALWAYS_HIDDEN || (mode != 0 && !S_ISDIR(mode)))
            skeleton_mount_point(path);
        free(path);
    }
}

void etc_write(const struct etc *etc, const struct identity *who,
               const struct description *description, const char *place)
{
    if (inside_is_mounted(place))
        fail(0, "mount single files or directories in it",
             "a hook has mounted a directory over '/etc', where the container's own files are");
    skeleton_directory(place);
    write_identity(etc, who, description, place);
    if (!is_kept(etc, "mtab"))
        skeleton_link(path_join(place, "mtab"), "/proc/mounts");
    for (size_t at = 0; at < etc->count; at++)
        skeleton_file(path_join(place, etc->files[at].name), etc->files[at].bytes,
                      etc->files[at].length);
}

void etc_key(const struct config *config, FILE *key)
{
    static const char *const copied[] = {"/etc/hosts", "/etc/resolv.conf"};
    struct file_id id;

    for (size_t at = 0; at < sizeof copied / sizeof copied[0]; at++) {
        file_id_read(&id, AT_FDCWD, copied[at]);
        file_id_write(key, &id, 1);
    }
    if (config->etc_path != NULL)
        file_id_write_all(key, config->etc_path);
}
