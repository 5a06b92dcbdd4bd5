/* Run a command, and lie to it about what the filesystem said: an operation fails that was not
   done, or one that was done is said to have failed, as when a server's reply is lost.

       liar [-s SEED] -r RULES -l LOG COMMAND...

   RULES has a line for each kind of lie, which is read again whenever the file has changed:

       OPERATIONS PATTERN before|after ERROR CHANCE MOST

   Of the OPERATIONS, such as "rename,unlink" or "*", on paths that match PATTERN (fnmatch(3)),
   each is lied about with this CHANCE, but at MOST so many.  ERROR is a number of errno(3), or
   "lost": what the second of two equal requests is answered when the first was done, ENOENT or
   EEXIST.  LOG gets a line for each lie: the rule's number, the operation, and its path or paths.

   All threads and children are lied to.  Ends as the command does, and only when all of it is
   gone.

   A call is skipped by giving it the number -1, and its result is written where the kernel keeps
   it: ptrace(2), PTRACE_EVENT_SECCOMP; seccomp(2), SECCOMP_RET_TRACE. */

#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RULES = 32, MOST_TASKS = 4096, TEXT = 2 * PATH_MAX };

/* Where a call has its directory's descriptor and its path; -1 for none of the two. */
struct call {
    long number;
    const char *operation;
    int directory, path;
    int second_directory, second_path;
};

#define CALL(name, ...) { SYS_##name, __VA_ARGS__ }

static const struct call CALLS[] = {
#ifdef SYS_open
    CALL(open, "open", -1, 0, -1, -1),
    CALL(creat, "create", -1, 0, -1, -1),
    CALL(rename, "rename", -1, 0, -1, 1),
    CALL(link, "link", -1, 0, -1, 1),
    CALL(unlink, "unlink", -1, 0, -1, -1),
    CALL(mkdir, "mkdir", -1, 0, -1, -1),
    CALL(rmdir, "rmdir", -1, 0, -1, -1),
    CALL(chmod, "chmod", -1, 0, -1, -1),
    CALL(stat, "stat", -1, 0, -1, -1),
    CALL(lstat, "stat", -1, 0, -1, -1),
    CALL(access, "stat", -1, 0, -1, -1),
    CALL(getdents, "readdir", 0, -1, -1, -1),
#endif
    CALL(openat, "open", 0, 1, -1, -1),
    CALL(openat2, "open", 0, 1, -1, -1),
    CALL(renameat, "rename", 0, 1, 2, 3),
    CALL(renameat2, "rename", 0, 1, 2, 3),
    CALL(linkat, "link", 0, 1, 2, 3),
    CALL(unlinkat, "unlink", 0, 1, -1, -1),
    CALL(mkdirat, "mkdir", 0, 1, -1, -1),
    CALL(fchmod, "chmod", 0, -1, -1, -1),
    CALL(fchmodat, "chmod", 0, 1, -1, -1),
    CALL(utimensat, "utimens", 0, 1, -1, -1),
    CALL(ftruncate, "truncate", 0, -1, -1, -1),
    CALL(newfstatat, "stat", 0, 1, -1, -1),
    CALL(statx, "stat", 0, 1, -1, -1),
    CALL(faccessat, "stat", 0, 1, -1, -1),
    CALL(faccessat2, "stat", 0, 1, -1, -1),
    CALL(fstat, "fstat", 0, -1, -1, -1),
    CALL(getdents64, "readdir", 0, -1, -1, -1),
    CALL(read, "read", 0, -1, -1, -1),
    CALL(pread64, "read", 0, -1, -1, -1),
    CALL(write, "write", 0, -1, -1, -1),
    CALL(pwrite64, "write", 0, -1, -1, -1),
    CALL(pwritev, "write", 0, -1, -1, -1),
    CALL(fsync, "fsync", 0, -1, -1, -1),
    CALL(flock, "flock", 0, -1, -1, -1),
};
enum { CALL_COUNT = sizeof CALLS / sizeof *CALLS };

struct rule {
    char operations[128], pattern[PATH_MAX];
    bool after;
    int error;
    double chance;
    long most;
};

struct task {
    pid_t id;
    /* What the call that it is in is to end with, or 0. */
    int error;
};

static struct {
    const char *rules_path;
    FILE *log;
    struct rule rules[MOST_RULES];
    int rule_count;
    struct timespec rules_time;
    struct task tasks[MOST_TASKS];
    int task_count;
} run;

static void fail(const char *what)
{
    fprintf(stderr, "liar: %s: %s\n", what, strerror(errno));
    exit(125);
}

/* ------------------------------------------------------------------------------- the machine */

#if defined __x86_64__
static void skip_call(pid_t task, int error)
{
    struct user_regs_struct registers;

    if (ptrace(PTRACE_GETREGS, task, 0, &registers) < 0)
        return;
    registers.orig_rax = (unsigned long long)-1;
    registers.rax = (unsigned long long)-(long long)error;
    ptrace(PTRACE_SETREGS, task, 0, &registers);
}

static void change_result(pid_t task, int error)
{
    struct user_regs_struct registers;

    if (ptrace(PTRACE_GETREGS, task, 0, &registers) < 0 || (long long)registers.rax < 0)
        return;
    registers.rax = (unsigned long long)-(long long)error;
    ptrace(PTRACE_SETREGS, task, 0, &registers);
}
#elif defined __aarch64__
static void set_result(pid_t task, int error, bool only_of_success)
{
    struct user_regs_struct registers;
    struct iovec all = { &registers, sizeof registers };

    if (ptrace(PTRACE_GETREGSET, task, NT_PRSTATUS, &all) < 0)
        return;
    if (only_of_success && (long long)registers.regs[0] < 0)
        return;
    registers.regs[0] = (unsigned long long)-(long long)error;
    ptrace(PTRACE_SETREGSET, task, NT_PRSTATUS, &all);
}

static void skip_call(pid_t task, int error)
{
    int none = -1;
    struct iovec number = { &none, sizeof none };

    ptrace(PTRACE_SETREGSET, task, NT_ARM_SYSTEM_CALL, &number);
    set_result(task, error, false);
}

static void change_result(pid_t task, int error)
{
    set_result(task, error, true);
}
#else
#error "how this machine skips a system call is not known here"
#endif

/* --------------------------------------------------------------------------------- the rules */

static void read_rules(void)
{
    struct stat status;
    char line[2 * PATH_MAX], when[16], error[16];
    FILE *file;

    if (stat(run.rules_path, &status) < 0)
        fail(run.rules_path);
    if (memcmp(&status.st_mtim, &run.rules_time, sizeof run.rules_time) == 0)
        return;
    run.rules_time = status.st_mtim;
    run.rule_count = 0;
    if ((file = fopen(run.rules_path, "re")) == NULL)
        fail(run.rules_path);
    while (run.rule_count < MOST_RULES && fgets(line, sizeof line, file) != NULL) {
        struct rule *rule = &run.rules[run.rule_count];

        if (sscanf(line, "%127s %4095s %15s %15s %lf %ld", rule->operations, rule->pattern, when,
                   error, &rule->chance, &rule->most) != 6)
            continue;
        rule->after = strcmp(when, "after") == 0;
        rule->error = atoi(error);
        run.rule_count++;
    }
    fclose(file);
}

static bool is_among(const char *operations, const char *operation)
{
    size_t length = strlen(operation);
    const char *found = operations;

    if (strcmp(operations, "*") == 0)
        return true;
    while ((found = strstr(found, operation)) != NULL) {
        if ((found == operations || found[-1] == ',') &&
            (found[length] == ',' || found[length] == '\0'))
            return true;
        found += length;
    }
    return false;
}

/* What a server says to the second of two equal requests, if the first was done. */
static int lost(const char *operation)
{
    static const char *const makes[] = {"link", "mkdir", "create"};

    for (size_t n = 0; n < sizeof makes / sizeof *makes; n++)
        if (strcmp(makes[n], operation) == 0)
            return EEXIST;
    return ENOENT;
}

/* The rule by which OPERATION, on these paths, is lied about now, or NULL. */
static const struct rule *choose(const char *operation, const char *path, const char *second)
{
    read_rules();
    for (int n = 0; n < run.rule_count; n++) {
        struct rule *rule = &run.rules[n];
        bool matches = fnmatch(rule->pattern, path, 0) == 0 ||
                       (second[0] != '\0' && fnmatch(rule->pattern, second, 0) == 0);

        if (!matches || rule->most == 0 || !is_among(rule->operations, operation) ||
            drand48() >= rule->chance)
            continue;
        rule->most--;
        fprintf(run.log, "%d\t%s\t%s\t%s\n", n, operation, path, second);
        fflush(run.log);
        return rule;
    }
    return NULL;
}

/* --------------------------------------------------------------------------------- the calls */

/* Copy the string at ADDRESS of TASK, as far as it can be read and fits, page by page. */
static void read_text(pid_t task, uint64_t address, char *text)
{
    size_t length = 0;

    text[0] = '\0';
    while (address != 0 && length < PATH_MAX) {
        size_t rest = 4096 - (address + length) % 4096;
        struct iovec ours = { text + length, rest };
        struct iovec theirs = { (void *)(address + length), rest };

        if (process_vm_readv(task, &ours, 1, &theirs, 1, 0) != (ssize_t)rest)
            break;
        if (memchr(text + length, '\0', rest) != NULL)
            return;
        length += rest;
    }
    text[length] = '\0';
}

static void read_link(pid_t task, const char *what, char text[PATH_MAX])
{
    char path[64];
    ssize_t length;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)task, what);
    length = readlink(path, text, PATH_MAX - 1);
    text[length < 0 ? 0 : length] = '\0';
}

/* The whole path that the arguments at these places mean. */
static void find_path(pid_t task, const uint64_t *arguments, int directory, int path,
                      char text[TEXT])
{
    char name[TEXT + 4096] = "", base[PATH_MAX] = "", number[32];

    if (path >= 0)
        read_text(task, arguments[path], name);
    if (name[0] == '/' || (directory < 0 && path < 0)) {
        snprintf(text, TEXT, "%.*s", TEXT - 1, name);
        return;
    }
    if (directory < 0 || (int)arguments[directory] == AT_FDCWD)
        read_link(task, "cwd", base);
    else {
        snprintf(number, sizeof number, "fd/%d", (int)arguments[directory]);
        read_link(task, number, base);
    }
    snprintf(text, TEXT, name[0] == '\0' ? "%s" : "%s/%.*s", base, PATH_MAX - 1, name);
}

static const char *operation_of(const struct call *call, const uint64_t *arguments)
{
    if (strcmp(call->operation, "open") == 0 &&
        (arguments[call->path + 1] & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
        return "create";
    if (call->number == SYS_unlinkat && (arguments[2] & AT_REMOVEDIR) != 0)
        return "rmdir";
    return call->operation;
}

/* Look at the call that TASK is about to make; skip it with an error, or note what it will end
   with: then the error is returned. */
static int at_call(pid_t task)
{
    struct __ptrace_syscall_info info;
    char path[TEXT] = "", second[TEXT] = "";
    const struct call *call = NULL;
    const struct rule *rule;
    const char *operation;
    int error;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, task, sizeof info, &info) < 0)
        return 0;
    for (int n = 0; n < CALL_COUNT; n++)
        if (CALLS[n].number == (long)info.seccomp.nr)
            call = &CALLS[n];
    if (call == NULL)
        return 0;
    find_path(task, info.seccomp.args, call->directory, call->path, path);
    if (call->second_path >= 0)
        find_path(task, info.seccomp.args, call->second_directory, call->second_path, second);
    operation = operation_of(call, info.seccomp.args);
    rule = choose(operation, path, second);
    if (rule == NULL)
        return 0;
    error = rule->error != 0 ? rule->error : lost(operation);
    if (rule->after)
        return error;
    skip_call(task, error);
    return 0;
}

/* --------------------------------------------------------------------------------- the tasks */

static struct task *remember(pid_t id)
{
    for (int n = 0; n < run.task_count; n++)
        if (run.tasks[n].id == id)
            return &run.tasks[n];
    if (run.task_count == MOST_TASKS) {
        errno = EAGAIN;
        fail("too many threads");
    }
    run.tasks[run.task_count] = (struct task){id, 0};
    return &run.tasks[run.task_count++];
}

static void forget(pid_t id)
{
    for (int n = 0; n < run.task_count; n++)
        if (run.tasks[n].id == id)
            run.tasks[n] = run.tasks[--run.task_count];
}

/* Let the task ID, which has stopped with STATUS, go on. */
static void at_stop(pid_t id, int status)
{
    struct task *task = remember(id);
    int event = status >> 16;
    int signal = event == 0 ? WSTOPSIG(status) : 0;

    if (signal == (SIGTRAP | 0x80)) {
        change_result(id, task->error);
        task->error = signal = 0;
    }
    if (event == PTRACE_EVENT_SECCOMP)
        task->error = at_call(id);
    if (event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP)
        ptrace(PTRACE_LISTEN, id, 0, 0);
    else
        ptrace(task->error != 0 ? PTRACE_SYSCALL : PTRACE_CONT, id, 0, signal);
}

/* Be the command, once somebody watches; only calls that are lied about are stopped at. */
static void become(char **command, int go)
{
    struct sock_filter filter[2 * CALL_COUNT + 2];
    struct sock_fprog program = { 0, filter };
    char byte;

    filter[program.len++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr));
    for (int n = 0; n < CALL_COUNT; n++) {
        filter[program.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                             (unsigned)CALLS[n].number, 0, 1);
        filter[program.len++] =
            (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    filter[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    if (read(go, &byte, 1) != 1)
        _exit(125);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("PR_SET_NO_NEW_PRIVS");
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        fail("seccomp");
    execvp(command[0], command);
    fail(command[0]);
}

static pid_t child;

/* What ends us is meant for the command: it ends as it likes. */
static void pass_on(int signal)
{
    kill(child, signal);
}

static void start(char **command)
{
    const long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                         PTRACE_O_TRACEEXEC | PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL |
                         PTRACE_O_TRACESYSGOOD;
    int go[2];

    if (pipe2(go, O_CLOEXEC) < 0 || (child = fork()) < 0)
        fail("fork");
    if (child == 0)
        become(command, go[0]);
    signal(SIGTERM, pass_on);
    signal(SIGINT, pass_on);
    if (ptrace(PTRACE_SEIZE, child, 0, options) < 0 || write(go[1], "", 1) != 1)
        fail("PTRACE_SEIZE");
    close(go[0]);
    close(go[1]);
}

static void read_options(int count, char **words)
{
    int option;

    while ((option = getopt(count, words, "+r:l:s:")) != -1) {
        if (option == 'r')
            run.rules_path = optarg;
        else if (option == 's')
            srand48(atol(optarg));
        else if (option != 'l' || (run.log = fopen(optarg, "ae")) == NULL)
            fail("options");
    }
    if (optind == count || run.rules_path == NULL || run.log == NULL) {
        errno = EINVAL;
        fail("no command, rules or log");
    }
}

int main(int count, char **words)
{
    int status, ended = 0;
    pid_t task;

    read_options(count, words);
    /* Who outlives its parent comes to us, so that we know when all are gone. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        fail("PR_SET_CHILD_SUBREAPER");
    start(words + optind);
    while ((task = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
        if (task < 0)
            continue;
        if (WIFSTOPPED(status)) {
            at_stop(task, status);
            continue;
        }
        forget(task);
        if (task == child)
            ended = status;
    }
    if (fclose(run.log) != 0)
        fail("the log");
    return WIFSIGNALED(ended) ? 128 + WTERMSIG(ended) : WEXITSTATUS(ended);
}
