#include "envfile.h"

#include "fail.h"
#include "files.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int envfile_parse(struct words *variables, char *text, struct complaint *why)
{
    for (why->line = 1; text != NULL; why->line++) {
        char *line = text;

        text = strchr(line, '\n');
        if (text != NULL)
            *text++ = '\0';
        line = trim(line);
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (line[0] == '=' || strchr(line, '=') == NULL)
            return complain(why, "write NAME=VALUE; a comment begins with '#'",
                            "no variable: '%.200s'", line);
        words_add(variables, line);
    }
    return 0;
}

/* A pipe will do, and is waited for, as any program would: --env-file=<(COMMAND) of a shell. */
static void read_file(struct words *variables, const char *path)
{
    struct complaint why = {0, "", ""};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    size_t length;
    char *text = fd >= 0 ? bytes_of(fd, &length) : NULL;

    if (text == NULL)
        fail(errno, NULL, "cannot read the variables of '%s'", path);
    close(fd);
    if (strlen(text) != length)
        fail(0, NULL, "'%s' is no text", path);
    if (envfile_parse(variables, text, &why) < 0)
        fail_complaining(&why, path);
}

void envfiles_read(struct words *variables, const struct words *paths)
{
    memset(variables, 0, sizeof *variables);
    for (size_t at = 0; at < paths->count; at++)
        read_file(variables, paths->list[at]);
}
