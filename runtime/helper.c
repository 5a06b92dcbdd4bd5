#include "helper.h"

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SIGNALS = 64, /* of the kernel; a libc hides the first real-time ones */
    STACK_MOST = 8 << 20,
    IO_PRIORITY_PROCESS = 1,
    IO_PRIORITY_NONE = 0,
    MEMORY_POLICY_DEFAULT = 0,
};

/* The kernel's struct sigaction, without a handler its members after the first are all zero. */
struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

/* Where the kernel finds the command line (mm->arg_start), and how far it may be written: the
   strings of argv and environ lie one behind the other. */
static struct {
    char *start, *end, *last;
} words;

void helper_begin(char **argv)
{
    char *end = argv[0];

    words.start = argv[0];
    for (char **at = argv; *at != NULL; at++)
        if (*at == end)
            end += strlen(*at) + 1;
    words.end = end;
    for (char **at = environ; *at != NULL; at++)
        if (*at == end)
            end += strlen(*at) + 1;
    words.last = end;
}

/* If the byte before the end of argv is not NUL, the kernel shows the text at its start, up to the
   first NUL, even where that lies beyond argv (proc_pid_cmdline(5), setproctitle(3)). */
void helper_name(const char *name, const char *subject)
{
    size_t room = words.start == NULL ? 0 : (size_t)(words.last - words.start);
    size_t taken = (size_t)(words.end - words.start);
    int length;

    prctl(PR_SET_NAME, name, 0, 0, 0);
    if (room < 2 || taken == 0)
        return;
    memset(words.start, 0, taken);
    length = snprintf(words.start, room, "%s %s", name, subject);
    if ((size_t)length + 1 < taken)
        words.end[-1] = '.';
}

/* By the kernel's own call, for a libc refuses numbers that it keeps for itself.  What is ignored stays
   so in a program that is executed; a fault of the process's own ends it all the same. */
static void set_all_signals(void (*handler)(int))
{
    const struct kernel_action action = {.handler = handler};
    sigset_t none;

    for (int number = 1; number <= SIGNALS; number++)
        syscall(SYS_rt_sigaction, number, &action, NULL, sizeof action.mask);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void helper_reset_signals(void)
{
    set_all_signals(SIG_DFL);
}

static void raise_limit(int resource)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    /* Threads get stacks of this size. */
    if (resource == RLIMIT_STACK && limit.rlim_cur > STACK_MOST)
        limit.rlim_cur = STACK_MOST;
    if (resource == RLIMIT_CORE)
        limit.rlim_cur = 0;
    setrlimit(resource, &limit);
}

/* Each of these is refused where the caller may not do it: then it stays as it was inherited. */
static void reset_scheduling(void)
{
    const struct sched_param none = {0};

    syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &none);
    setpriority(PRIO_PROCESS, 0, 0);
    syscall(SYS_ioprio_set, IO_PRIORITY_PROCESS, 0, IO_PRIORITY_NONE);
    syscall(SYS_set_mempolicy, MEMORY_POLICY_DEFAULT, NULL, 0);
    prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0);
    prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
}

void helper_settle(void)
{
    set_all_signals(SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    for (int resource = 0; resource < RLIM_NLIMITS; resource++)
        raise_limit(resource);
    reset_scheduling();
}
