/* JSON, written: names, texts, lists. */
#ifndef SHIFTER_JSON_H
#define SHIFTER_JSON_H

#include <stdio.h>

struct json {
    FILE *out;
    int depth, empty; /* whether nothing stands yet in the list or object that is open */
};

/* Begin with `bracket` a list or an object, called `name` where it stands in an object, or NULL. */
void json_open(struct json *json, const char *name, char bracket);
void json_close(struct json *json, char bracket);

/* A text, null if it is NULL; bytes that are no UTF-8 as Python's surrogateescape has them. */
void json_text(struct json *json, const char *name, const char *text);

/* The text alone, with its quotes. */
void json_quote(FILE *out, const char *text);

void json_number(struct json *json, const char *name, unsigned long long number);

#endif
