#include "config.h"

#include "fail.h"
#include "files.h"

#include <ctype.h>
#include <string.h>

#define CONFIG_FILE SYSCONFDIR "/shifter/udiRoot.conf"

/* Join each line that ends with a backslash to the next, with one blank, as Shifter does. */
static void join_lines(char *text)
{
    for (char *at = strchr(text, '\\'); at != NULL; at = strchr(at + 1, '\\'))
        if (at[1] == '\n')
            at[0] = at[1] = ' ';
}

static char *trim(char *text)
{
    size_t length;

    while (isspace((unsigned char)*text))
        text++;
    length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    return text;
}

const char *config_store(void)
{
    char *text = text_read(CONFIG_FILE), *rest = NULL;
    const char *store = NULL;

    if (text == NULL) {
        if (errno != ENOENT && errno != ENOTDIR)
            fail(errno, NULL, "cannot read '%s'", CONFIG_FILE);
        return NULL;
    }
    join_lines(text);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char *equals = strchr(line, '=');

        if (line[0] == '#' || equals == NULL)
            continue;
        *equals = '\0';
        if (strcmp(trim(line), "imagePath") == 0)
            store = trim(equals + 1);
    }
    return store != NULL && store[0] != '\0' ? store : NULL;
}
