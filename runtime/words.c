#include "words.h"

#include "files.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void words_add(struct words *words, const char *word)
{
    words->list = must_grow(words->list, words->count + 1, &words->room, sizeof *words->list);
    words->list[words->count++] = word;
    words->list[words->count] = NULL;
}

void words_split(struct words *words, char *text, const char *separators)
{
    char *rest = NULL;

    for (char *word = strtok_r(text, separators, &rest); word != NULL;
         word = strtok_r(NULL, separators, &rest))
        words_add(words, word);
}

int words_have(const struct words *words, const char *word)
{
    for (size_t at = 0; at < words->count; at++)
        if (strcmp(words->list[at], word) == 0)
            return 1;
    return 0;
}

char *trim(char *text)
{
    size_t length;

    while (isspace((unsigned char)*text))
        text++;
    length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    return text;
}
