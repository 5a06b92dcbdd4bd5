#include "attempt.h"

#include "fail.h"
#include "prologue.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAID_MOST = 16384, AFTER_KILL_MS = 1000, PAUSE_MS = 5 };

#define HINT "  hint: "

void say_trouble(const char *fact, const char *advice)
{
    if (advice != NULL && advice[0] != '\0')
        warn("%s (%s)", fact, advice);
    else
        warn("%s", fact);
}

static _Noreturn void be_child(void (*work)(void *), void *with, int said, pid_t parent)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    /* A prologue that is killed leaves no part of it at work. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(EXIT_SHIFTER);
    /* A reader of the prologue's output must not wait for a child that hangs. */
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(nothing, STDOUT_FILENO) < 0 ||
        dup2(said, STDERR_FILENO) < 0)
        _exit(EXIT_SHIFTER);
    work(with);
    exit(EXIT_SUCCESS);
}

/* Read what the child says until it ends; 0 if the time is over before. */
static int listen(int from, char said[SAID_MOST], int most_ms)
{
    int end_ms = prologue_time_left() - most_ms;
    size_t length = 0;

    said[0] = '\0';
    for (;;) {
        struct pollfd ready = {from, POLLIN, 0};
        char rest[512];
        int left = prologue_time_left() - (end_ms > 0 ? end_ms : 0);
        ssize_t got;

        if (left <= 0 || poll(&ready, 1, left) == 0)
            return 0;
        got = length < SAID_MOST - 1 ? read(from, said + length, SAID_MOST - 1 - length)
                                     : read(from, rest, sizeof rest);
        if (got <= 0)
            return 1;
        if (length < SAID_MOST - 1)
            length += (size_t)got;
        said[length] = '\0';
    }
}

/* Say again what the child has said, a hint on the line of its fact. */
static int repeat(char *said)
{
    const char *before = fail_program;
    size_t prefix = strlen(before) + strlen(": ");
    char *line = strtok(said, "\n");
    int count = 0;

    for (; line != NULL; count++) {
        char *next = strtok(NULL, "\n");
        const char *advice = NULL;

        if (next != NULL && strncmp(next, HINT, strlen(HINT)) == 0) {
            advice = next + strlen(HINT);
            next = strtok(NULL, "\n");
        }
        if (strncmp(line, before, strlen(before)) == 0 && strlen(line) > prefix)
            line += prefix;
        say_trouble(line, advice);
        line = next;
    }
    return count;
}

/* A child that hangs in a system call does not die before that ends, and is not waited for. */
static void end_child(pid_t child)
{
    const struct timespec nap = {0, PAUSE_MS * 1000000};

    kill(child, SIGKILL);
    for (int waited = 0; waited < AFTER_KILL_MS; waited += PAUSE_MS) {
        if (waitpid(child, NULL, WNOHANG) != 0)
            return;
        nanosleep(&nap, NULL);
    }
}

static int judge(pid_t child, char *said, const char *what)
{
    int status = 0;

    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    if (repeat(said) == 0 && status != 0)
        warn(WIFSIGNALED(status) ? "%s: ended by signal %d" : "%s: ended with %d", what,
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return status == 0;
}

int attempt(void (*work)(void *), void *with, const char *what, int most_ms)
{
    static char said[SAID_MOST];
    pid_t parent = getpid(), child;
    int talk[2], is_over;

    MUST(pipe2(talk, O_CLOEXEC), "cannot begin");
    child = fork();
    MUST(child, "cannot begin");
    if (child == 0)
        be_child(work, with, talk[1], parent);
    close(talk[1]);
    is_over = listen(talk[0], said, most_ms);
    close(talk[0]);
    if (is_over)
        return judge(child, said, what);
    end_child(child);
    repeat(said);
    warn("%s: not done in time", what);
    return 0;
}
