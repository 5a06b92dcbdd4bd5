/* The lines of passwd(5) and group(5), of the host or of an image: whatever is no line is passed
   over, and nothing is taken from beyond the end of one. */
#ifndef SHIFTER_ACCOUNTS_H
#define SHIFTER_ACCOUNTS_H

#include <stdint.h>

enum { PASSWD_FIELDS = 7, GROUP_FIELDS = 4 };

/* One line: where its fields begin, and its number. */
struct line {
    const char *start, *end;
    const char *field[PASSWD_FIELDS];
    uint32_t number;
};

/* Take the next well-formed line of `fields` fields from `*text`; 0 at its end. */
int line_next(const char **text, int fields, struct line *line);

int line_has_name(const struct line *line, const char *name);

/* A copy of one of its fields, or of all of it, from malloc. */
char *line_field(const struct line *line, int number);
char *line_copy(const struct line *line);

#endif
