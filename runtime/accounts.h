/* The lines of passwd(5) and group(5), of the host or of an image: what is no line is passed over,
   and nothing is taken from beyond the end of one. */
#ifndef SHIFTER_ACCOUNTS_H
#define SHIFTER_ACCOUNTS_H

#include <stddef.h>
#include <stdint.h>

enum { PASSWD_FIELDS = 7, GROUP_FIELDS = 4 };

/* One line: where its fields begin, and its number. */
struct line {
    const char *start, *end; /* the end is before "\n" or "\r\n" */
    const char *field[PASSWD_FIELDS];
    uint32_t number;
};

/* Take the next well-formed line of `fields` fields from `*text`; 0 at its end. */
int line_next(const char **text, int fields, struct line *line);

int line_has_name(const struct line *line, const char *name);
size_t line_name_length(const struct line *line);

/* A copy of one of its fields, or of all of it, from malloc. */
char *line_field(const struct line *line, int number);
char *line_copy(const struct line *line);

/* `number` in decimal, somewhere in `room`. */
enum { DIGITS_ROOM = 11 };
const char *digits_of(uint32_t number, char room[DIGITS_ROOM]);

/* The text of the file `path` of at most `most` bytes, from malloc.  A line that holds a NUL becomes
   a comment.  "" if there is no such file; also if it cannot be read or is larger, and then a
   warning calls it `shown`. */
char *accounts_read(const char *path, const char *shown, size_t most);

#endif
