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

void fail_complaining(const struct complaint *why, const char *file)
{
    const char *advice = why->advice[0] != '\0' ? why->advice : NULL;

    if (file == NULL)
        fail(0, advice, "%s", why->fact);
    if (why->line == 0)
        fail(0, advice, "'%s': %s", file, why->fact);
    fail(0, advice, "'%s' line %u: %s", file, why->line, why->fact);
}
