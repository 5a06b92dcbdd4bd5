#include "doctor.h"

#include "fail.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 30, SAID_MOST = 8192 };

enum verdict { GOOD, NOTE, WRONG, UNTRIED };

static const char *const words[] = {"ok", "note", "WRONG", "-"};

/* What a probe has said. */
struct said {
    int file;
    char text[SAID_MOST];
};

static void begin_saying(struct said *said)
{
    said->file = memfd_create("said", MFD_CLOEXEC);
    MUST(said->file, "cannot keep what is found");
}

/* What it quotes may come from anyone. */
static void end_saying(struct said *said)
{
    ssize_t length = pread(said->file, said->text, sizeof said->text - 1, 0);

    close(said->file);
    length = length < 0 ? 0 : length;
    while (length > 0 && said->text[length - 1] == '\n')
        length--;
    said->text[length] = '\0';
    for (char *at = said->text; *at != '\0'; at++)
        if (((unsigned char)*at < ' ' && *at != '\n') || *at == 0x7f)
            *at = '?';
}

static _Noreturn void try(const struct probe *probe, const struct visit *visit, int found,
                          int complained)
{
    MUST(dup2(found, STDOUT_FILENO), "cannot keep what is found");
    MUST(dup2(complained, STDERR_FILENO), "cannot keep what is found");
    signal(SIGALRM, SIG_DFL);
    alarm(PATIENCE_S);
    probe->try(visit);
    exit(EXIT_SUCCESS);
}

/* How the probe ended; what it has started ends before us, for as a subreaper we are its parent. */
static int wait_for(pid_t child)
{
    int status = 0, other;
    pid_t ended;

    do
        ended = waitpid(child, &status, 0);
    while (ended < 0 && errno == EINTR);
    MUST(ended, "cannot wait for what was tried");
    do
        ended = waitpid(-1, &other, __WALL);
    while (ended > 0 || errno == EINTR);
    return status;
}

static enum verdict judge(const struct probe *probe, int status, struct said *complained)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        snprintf(complained->text, SAID_MOST, "no answer within %d seconds", PATIENCE_S);
    else if (WIFSIGNALED(status))
        snprintf(complained->text, SAID_MOST, "ended by signal %d", WTERMSIG(status));
    if (status != 0)
        return probe->needed ? WRONG : NOTE;
    return complained->text[0] != '\0' ? NOTE : GOOD;
}

/* One line, and indented the lines that belong to it. */
static void tell(enum verdict verdict, const char *what, const char *text)
{
    static const char start[] = "shifter: ";
    size_t length;

    printf("%-5s %s", words[verdict], what);
    for (const char *before = ": "; *text != '\0'; before = "\n      ") {
        if (strncmp(text, start, strlen(start)) == 0)
            text += strlen(start);
        length = strcspn(text, "\n");
        printf("%s%.*s", before, (int)length, text);
        text += length + (text[length] == '\n');
    }
    printf("\n");
}

static enum verdict examine(const struct probe *probe, const struct visit *visit)
{
    struct said found, complained;
    enum verdict verdict;
    int status;
    pid_t child;

    begin_saying(&found);
    begin_saying(&complained);
    fflush(stdout);
    child = fork();
    MUST(child, "cannot try anything");
    if (child == 0)
        try(probe, visit, found.file, complained.file);
    status = wait_for(child);
    end_saying(&found);
    end_saying(&complained);
    verdict = judge(probe, status, &complained);
    tell(verdict, probe->what, verdict == GOOD ? found.text : complained.text);
    return verdict;
}

/* Whether what must work before `probe` works. */
static int is_possible(const struct probe *probe, const enum verdict *verdicts)
{
    for (size_t at = 0; at < probe_count; at++)
        if (probe->after != NULL && strcmp(probes[at].what, probe->after) == 0)
            return verdicts[at] == GOOD || verdicts[at] == NOTE;
    return 1;
}

int doctor(const struct visit *visit)
{
    enum verdict *verdicts = calloc(probe_count, sizeof *verdicts);
    int is_well = 1;

    if (verdicts == NULL)
        fail(ENOMEM, NULL, "cannot go on");
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "cannot wait for what is tried");
    for (size_t at = 0; at < probe_count; at++) {
        if (is_possible(&probes[at], verdicts)) {
            verdicts[at] = examine(&probes[at], visit);
        } else {
            verdicts[at] = UNTRIED;
            tell(UNTRIED, probes[at].what, hint("not tried, for it needs %s", probes[at].after));
        }
        is_well &= !probes[at].needed || verdicts[at] == GOOD || verdicts[at] == NOTE;
    }
    free(verdicts);
    printf(is_well ? "images can be run here\n" : "images cannot be run here\n");
    if (fflush(stdout) != 0 || ferror(stdout))
        fail(errno, NULL, "cannot write to standard output");
    return is_well ? EXIT_SUCCESS : EXIT_FAILURE;
}
