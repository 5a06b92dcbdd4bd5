#include "fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *fail_program = "shifter";

enum { MESSAGE_MAX = 8192 };

static void append(char *message, size_t *length, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void append_list(char *message, size_t *length, const char *format, va_list values)
{
    int written = vsnprintf(message + *length, MESSAGE_MAX - *length, format, values);

    if (written > 0)
        *length += (size_t)written;
    if (*length > MESSAGE_MAX - 1)
        *length = MESSAGE_MAX - 1;
}

static void append(char *message, size_t *length, const char *format, ...)
{
    va_list values;

    va_start(values, format);
    append_list(message, length, format, values);
    va_end(values);
}

/* What we quote may come from anyone: no control character of theirs reaches a terminal. */
static void defuse(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

static void say(int error, const char *advice, const char *fact, va_list values)
{
    char message[MESSAGE_MAX];
    size_t length = 0, start;
    ssize_t ignored;

    append(message, &length, "%s: ", fail_program);
    append_list(message, &length, fact, values);
    if (error != 0)
        append(message, &length, ": %s", strerror(error));
    defuse(message);
    if (advice != NULL) {
        start = length;
        append(message, &length, "\n  hint: %s", advice);
        if (length > start + 1)
            defuse(message + start + 1);
    }
    append(message, &length, "\n");
    /* One write, so that the messages of a thousand ranks do not mix. */
    ignored = write(STDERR_FILENO, message, length);
    (void)ignored;
}

void fail(int error, const char *advice, const char *fact, ...)
{
    va_list values;

    va_start(values, fact);
    say(error, advice, fact, values);
    va_end(values);
    exit(EXIT_SHIFTER);
}

void fail_as(int status, int error, const char *advice, const char *fact, ...)
{
    va_list values;

    va_start(values, fact);
    say(error, advice, fact, values);
    va_end(values);
    exit(status);
}

void warn(const char *fact, ...)
{
    va_list values;

    va_start(values, fact);
    say(0, NULL, fact, values);
    va_end(values);
}

const char *hint(const char *format, ...)
{
    char *text = NULL;
    va_list values;
    int length;

    va_start(values, format);
    length = vasprintf(&text, format, values);
    va_end(values);
    return length < 0 ? NULL : text;
}
