/* Lists of words, and what sites and modules do to an environment with them. */
#ifndef SHIFTER_WORDS_H
#define SHIFTER_WORDS_H

#include <stddef.h>

struct words {
    const char **list; /* ended by NULL, once there is a word */
    size_t count, room;
};

/* In the order in which they are applied. */
struct edits {
    struct words set, append, prepend, unset; /* NAME=value …; of `unset`: NAME … */
};

/* Add a word, which is not copied. */
void words_add(struct words *words, const char *word);

/* Cut `text` at each run of `separators`, and add what is between them. */
void words_split(struct words *words, char *text, const char *separators);

/* Whether one of them is `word`. */
int words_have(const struct words *words, const char *word);

/* `text` without the blanks around it, which are overwritten. */
char *trim(char *text);

#endif
