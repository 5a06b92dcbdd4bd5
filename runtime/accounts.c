#include "accounts.h"

#include "fail.h"
#include "files.h"

#include <stdlib.h>
#include <string.h>

static int read_number(const char *digits, uint32_t *number)
{
    uint64_t value = 0;
    int length = 0;

    for (; length < 11 && digits[length] >= '0' && digits[length] <= '9'; length++)
        value = 10 * value + (uint64_t)(digits[length] - '0');
    *number = (uint32_t)value;
    return length > 0 && length <= 10 && digits[length] == ':' && value < UINT32_MAX;
}

/* Cut a line off the text, and find where its fields begin; returns how many there are. */
static int cut(const char **text, int fields, struct line *line)
{
    const char *end = *text + strcspn(*text, "\n");
    int count = 1;

    line->start = line->field[0] = *text;
    *text = *end == '\n' ? end + 1 : end;
    line->end = end > line->start && end[-1] == '\r' ? end - 1 : end;
    for (const char *at = line->start; at < line->end; at++)
        if (*at == ':' && ++count <= fields)
            line->field[count - 1] = at + 1;
    return count;
}

static int is_well_formed(struct line *line, int fields)
{
    uint32_t gid;

    return *line->start != ':' && strchr("#+-", *line->start) == NULL &&
           read_number(line->field[2], &line->number) &&
           (fields != PASSWD_FIELDS || read_number(line->field[3], &gid));
}

int line_next(const char **text, int fields, struct line *line)
{
    while (**text != '\0')
        if (cut(text, fields, line) == fields && is_well_formed(line, fields))
            return 1;
    return 0;
}

size_t line_name_length(const struct line *line)
{
    return (size_t)(line->field[1] - 1 - line->start);
}

int line_has_name(const struct line *line, const char *name)
{
    size_t length = strlen(name);

    return length == line_name_length(line) && memcmp(line->start, name, length) == 0;
}

static char *copy_field(const char *field, const char *end)
{
    char *copy = strndup(field, (size_t)(end - field));

    if (copy == NULL)
        fail(ENOMEM, NULL, "cannot go on");
    return copy;
}

char *line_field(const struct line *line, int number)
{
    const char *field = line->field[number], *colon = field + strcspn(field, ":\n");

    return copy_field(field, colon < line->end ? colon : line->end);
}

char *line_copy(const struct line *line)
{
    return copy_field(line->start, line->end);
}

const char *digits_of(uint32_t number, char room[DIGITS_ROOM])
{
    char *at = room + DIGITS_ROOM - 1;

    *at = '\0';
    do
        *--at = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return at;
}

/* A NUL ends a text, so what follows one would be lost. */
static void comment_out_nuls(char *text, size_t length)
{
    char *start = text, *nul;

    while ((nul = memchr(start, '\0', (size_t)(text + length - start))) != NULL) {
        char *line = memrchr(start, '\n', (size_t)(nul - start));
        char *end = memchr(nul, '\n', (size_t)(text + length - nul));

        *(line != NULL ? line + 1 : start) = '#';
        start = end != NULL ? end : text + length;
        for (; nul < start; nul++)
            if (*nul == '\0')
                *nul = '?';
    }
}

char *accounts_read(const char *path, const char *shown, size_t most)
{
    size_t length;
    char *text = bytes_read_most(path, most, &length);

    if (text != NULL) {
        comment_out_nuls(text, length);
        return text;
    }
    if (errno == EFBIG)
        warn("%s is larger than %zu MiB: its names are not known in the container", shown,
             most >> 20);
    else if (errno != ENOENT && errno != ENOTDIR)
        warn("cannot read %s, so its names are not known in the container: %s", shown,
             strerror(errno));
    return must_copy("");
}
