#include "complaint.h"

#include "fail.h"

#include <stdarg.h>
#include <stdio.h>

int complain(struct complaint *why, const char *advice, const char *fact, ...)
{
    va_list values;

    va_start(values, fact);
    vsnprintf(why->fact, sizeof why->fact, fact, values);
    va_end(values);
    snprintf(why->advice, sizeof why->advice, "%s", advice != NULL ? advice : "");
    return -1;
}

static const char *listed_file;
static unsigned listed;

void complaints_list(const char *file)
{
    listed_file = file;
}

unsigned complaints_listed(void)
{
    return listed;
}

/* No line break or other control character of a text makes two lines of one. */
static void print(const char *text)
{
    for (; *text != '\0'; text++)
        fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, stderr);
}

int complaint_listed(struct complaint *why)
{
    if (listed_file == NULL)
        return 0;
    if (why->fact[0] == '\0')
        return 1;
    print(listed_file);
    if (why->line != 0)
        fprintf(stderr, ":%u", why->line);
    fputs(": ", stderr);
    print(why->fact);
    if (why->advice[0] != '\0') {
        fputs(" (hint: ", stderr);
        print(why->advice);
        fputc(')', stderr);
    }
    fputc('\n', stderr);
    listed++;
    why->fact[0] = '\0';
    return 1;
}

void fail_complaining(const struct complaint *why, const char *file)
{
    const char *advice = why->advice[0] != '\0' ? why->advice : NULL;

    if (file == NULL)
        fail(0, advice, "%s", why->fact);
    if (why->line == 0)
        fail(0, advice, "'%s': %s", file, why->fact);
    fail(0, advice, "'%s' line %u: %s", file, why->line, why->fact);
}
