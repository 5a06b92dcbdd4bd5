#include "rlimits.h"

#include "fail.h"

#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SECONDS_FEW = 300,
    DESCRIPTORS_NEEDED = 32,
};

/* Of the server's caches at their largest: blocks of 1 MiB. */
static const rlim_t memory_needed = 96u << 20;

static rlim_t hard(int resource)
{
    struct rlimit limit;

    return getrlimit(resource, &limit) == 0 ? limit.rlim_max : RLIM_INFINITY;
}

uint64_t rlimits_processor_seconds(void)
{
    rlim_t seconds = hard(RLIMIT_CPU);

    return seconds == RLIM_INFINITY ? UINT64_MAX : seconds;
}

/* An ordinary user cannot take back a low priority. */
static void write_priority(FILE *key)
{
    int nice = getpriority(PRIO_PROCESS, 0);
    long policy = syscall(SYS_sched_getscheduler, 0);

    if (nice > 0)
        fprintf(key, "nice %d\n", nice);
    if (policy == SCHED_IDLE)
        fprintf(key, "idle\n");
}

void rlimits_write(FILE *key)
{
    static const int memory[] = {RLIMIT_DATA, RLIMIT_AS};
    rlim_t seconds = hard(RLIMIT_CPU);

    if (seconds != RLIM_INFINITY)
        fprintf(key, "processor seconds %ju\n", (uintmax_t)seconds);
    for (size_t at = 0; at < sizeof memory / sizeof memory[0]; at++)
        if (hard(memory[at]) < memory_needed)
            fprintf(key, "limit %d %ju\n", memory[at], (uintmax_t)hard(memory[at]));
    write_priority(key);
}

const char *rlimits_hint(void)
{
    if (hard(RLIMIT_NOFILE) < DESCRIPTORS_NEEDED)
        return hint("this process may have %ju descriptors: raise the hard limit (ulimit -n)",
                    (uintmax_t)hard(RLIMIT_NOFILE));
    if (hard(RLIMIT_AS) < memory_needed)
        return hint("this process may have %ju MiB of memory: raise the hard limit (ulimit -v)",
                    (uintmax_t)hard(RLIMIT_AS) >> 20);
    if (hard(RLIMIT_DATA) < memory_needed)
        return hint("this process may have %ju MiB of data: raise the hard limit (ulimit -d)",
                    (uintmax_t)hard(RLIMIT_DATA) >> 20);
    if (hard(RLIMIT_CPU) <= SECONDS_FEW)
        return hint("this process may use %ju seconds of processor time: raise the hard limit "
                    "(ulimit -t)",
                    (uintmax_t)hard(RLIMIT_CPU));
    return NULL;
}

void rlimits_warn(void)
{
    static const char consequence[] = "the image's server is subject to it, and when the server "
                                      "ends, the command loses its files";

    if (hard(RLIMIT_CPU) <= SECONDS_FEW)
        warn("the hard limit of processor time is %ju s (ulimit -t): %s",
             (uintmax_t)hard(RLIMIT_CPU), consequence);
    if (hard(RLIMIT_DATA) < memory_needed)
        warn("the hard limit of data is %ju MiB (ulimit -d): %s",
             (uintmax_t)hard(RLIMIT_DATA) >> 20, consequence);
    if (hard(RLIMIT_AS) < memory_needed)
        warn("the hard limit of memory is %ju MiB (ulimit -v): %s",
             (uintmax_t)hard(RLIMIT_AS) >> 20, consequence);
}

/* What was lifted, and how it was. */
struct lifted {
    int resource, is_lifted;
    struct rlimit callers;
};

static struct lifted size = {.resource = RLIMIT_FSIZE}, descriptors = {.resource = RLIMIT_NOFILE};
static struct sigaction callers_action;

static void lift(struct lifted *lifted)
{
    struct rlimit limit;

    MUST(getrlimit(lifted->resource, &lifted->callers), "cannot read the limits of this process");
    limit = lifted->callers;
    limit.rlim_cur = limit.rlim_max;
    lifted->is_lifted = lifted->callers.rlim_cur != limit.rlim_max &&
                        setrlimit(lifted->resource, &limit) == 0;
}

static void restore(const struct lifted *lifted)
{
    if (lifted->is_lifted)
        MUST(setrlimit(lifted->resource, &lifted->callers),
             "cannot restore the limits of this process");
}

void rlimits_lift(void)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};

    lift(&size);
    if (size.callers.rlim_max != RLIM_INFINITY)
        MUST(sigaction(SIGXFSZ, &ignore, &callers_action), "cannot ignore SIGXFSZ");
}

void rlimits_lift_descriptors(void)
{
    lift(&descriptors);
}

void rlimits_restore(void)
{
    restore(&size);
    restore(&descriptors);
    if (size.callers.rlim_max != RLIM_INFINITY)
        MUST(sigaction(SIGXFSZ, &callers_action, NULL), "cannot restore SIGXFSZ");
}
