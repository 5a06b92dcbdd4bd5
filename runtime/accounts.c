#include "accounts.h"

#include "fail.h"

#include <stdlib.h>
#include <string.h>

static int read_number(const char *digits, uint32_t *number)
{
    size_t length = strspn(digits, "0123456789");
    unsigned long long value = length > 0 && length <= 10 ? strtoull(digits, NULL, 10) : UINT64_MAX;

    *number = (uint32_t)value;
    return digits[length] == ':' && value < UINT32_MAX;
}

int line_next(const char **text, int fields, struct line *line)
{
    while (**text != '\0') {
        int count = 1;

        line->start = line->field[0] = *text;
        line->end = *text + strcspn(*text, "\n");
        *text = *line->end == '\n' ? line->end + 1 : line->end;
        for (const char *at = line->start; at < line->end; at++)
            if (*at == ':' && ++count <= fields)
                line->field[count - 1] = at + 1;
        if (count == fields && *line->start != ':' && strchr("#+-", *line->start) == NULL &&
            read_number(line->field[2], &line->number))
            return 1;
    }
    return 0;
}

int line_has_name(const struct line *line, const char *name)
{
    size_t length = strlen(name);

    return strncmp(line->start, name, length) == 0 && line->start[length] == ':';
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
    const char *field = line->field[number];

    return copy_field(field, field + strcspn(field, ":\n"));
}

char *line_copy(const struct line *line)
{
    return copy_field(line->start, line->end);
}
