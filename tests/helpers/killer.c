/* Run a command, and kill all of it before its N-th system call.

       killer [-c] [-n NUMBER] [-f PATH] [-l LOG] COMMAND...

   Calls of all threads and children are counted in one order: the one in which they are about to
   begin.  With -f, counting begins with the first open of PATH.  With -c, only calls count that
   can change a file, take or leave a lock, or send something.  Without -n nothing is killed.  LOG
   gets a line for each counted call: its number, "c" if it is of those or "-", its name, and the
   path or file that it is about.

   A call before which its process is killed does not happen: the kernel skips what waits for its
   tracer when a deadly signal comes (seccomp(2), SECCOMP_RET_TRACE).  The calls that other threads
   are in at that moment end as they do whenever somebody sends SIGKILL.

   Ends as the command does, with 137 if it was killed, and only when all of it is gone. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_TASKS = 4096, TEXT = 2 * PATH_MAX };

/* What a call changes: nothing, what it is about, a file if it makes one, a file if it is none of
   the process's own pipes, or locks if it is one of those commands. */
enum change { NEVER, ALWAYS, IF_CREATING, IF_WRITING, IF_LOCKING };

/* What the argument at `about` is. */
enum kind { NOTHING, NAME, FILE_NUMBER };

struct call {
    long number;
    const char *name;
    enum change change;
    enum kind kind;
    int about;
};

#define CALL(name, ...) { SYS_##name, #name, __VA_ARGS__ }

static const struct call CALLS[] = {
#ifdef SYS_open
    CALL(open, IF_CREATING, NAME, 0),
    CALL(creat, ALWAYS, NAME, 0),
    CALL(rename, ALWAYS, NAME, 0),
    CALL(link, ALWAYS, NAME, 0),
    CALL(symlink, ALWAYS, NAME, 1),
    CALL(unlink, ALWAYS, NAME, 0),
    CALL(mkdir, ALWAYS, NAME, 0),
    CALL(rmdir, ALWAYS, NAME, 0),
    CALL(mknod, ALWAYS, NAME, 0),
    CALL(chmod, ALWAYS, NAME, 0),
    CALL(chown, ALWAYS, NAME, 0),
    CALL(lchown, ALWAYS, NAME, 0),
    CALL(utime, ALWAYS, NAME, 0),
    CALL(utimes, ALWAYS, NAME, 0),
    CALL(futimesat, ALWAYS, NAME, 1),
    CALL(stat, NEVER, NAME, 0),
    CALL(lstat, NEVER, NAME, 0),
    CALL(access, NEVER, NAME, 0),
    CALL(readlink, NEVER, NAME, 0),
    CALL(getdents, NEVER, FILE_NUMBER, 0),
#endif
    CALL(openat, IF_CREATING, NAME, 1),
    CALL(openat2, ALWAYS, NAME, 1),
    CALL(renameat, ALWAYS, NAME, 1),
    CALL(renameat2, ALWAYS, NAME, 1),
    CALL(linkat, ALWAYS, NAME, 1),
    CALL(symlinkat, ALWAYS, NAME, 2),
    CALL(unlinkat, ALWAYS, NAME, 1),
    CALL(mkdirat, ALWAYS, NAME, 1),
    CALL(mknodat, ALWAYS, NAME, 1),
    CALL(fchmod, ALWAYS, FILE_NUMBER, 0),
    CALL(fchmodat, ALWAYS, NAME, 1),
    CALL(fchown, ALWAYS, FILE_NUMBER, 0),
    CALL(fchownat, ALWAYS, NAME, 1),
    CALL(utimensat, ALWAYS, FILE_NUMBER, 0),
    CALL(truncate, ALWAYS, NAME, 0),
    CALL(ftruncate, ALWAYS, FILE_NUMBER, 0),
    CALL(fallocate, ALWAYS, FILE_NUMBER, 0),
    CALL(setxattr, ALWAYS, NAME, 0),
    CALL(fsetxattr, ALWAYS, FILE_NUMBER, 0),
    CALL(removexattr, ALWAYS, NAME, 0),
    CALL(fsync, ALWAYS, FILE_NUMBER, 0),
    CALL(fdatasync, ALWAYS, FILE_NUMBER, 0),
    CALL(sync_file_range, ALWAYS, FILE_NUMBER, 0),
    CALL(syncfs, ALWAYS, FILE_NUMBER, 0),
    CALL(sync, ALWAYS, NOTHING, 0),
    CALL(flock, ALWAYS, FILE_NUMBER, 0),
    CALL(fcntl, IF_LOCKING, FILE_NUMBER, 0),
    CALL(write, IF_WRITING, FILE_NUMBER, 0),
    CALL(writev, IF_WRITING, FILE_NUMBER, 0),
    CALL(pwrite64, IF_WRITING, FILE_NUMBER, 0),
    CALL(pwritev, IF_WRITING, FILE_NUMBER, 0),
    CALL(pwritev2, IF_WRITING, FILE_NUMBER, 0),
    CALL(copy_file_range, ALWAYS, FILE_NUMBER, 2),
    CALL(sendfile, ALWAYS, FILE_NUMBER, 0),
    CALL(splice, ALWAYS, FILE_NUMBER, 2),
    CALL(connect, ALWAYS, FILE_NUMBER, 0),
    CALL(sendto, ALWAYS, FILE_NUMBER, 0),
    CALL(sendmsg, ALWAYS, FILE_NUMBER, 0),
    CALL(sendmmsg, ALWAYS, FILE_NUMBER, 0),
    CALL(shutdown, ALWAYS, FILE_NUMBER, 0),
    CALL(read, NEVER, FILE_NUMBER, 0),
    CALL(pread64, NEVER, FILE_NUMBER, 0),
    CALL(recvfrom, NEVER, FILE_NUMBER, 0),
    CALL(lseek, NEVER, FILE_NUMBER, 0),
    CALL(close, NEVER, FILE_NUMBER, 0),
    CALL(fstat, NEVER, FILE_NUMBER, 0),
    CALL(newfstatat, NEVER, NAME, 1),
    CALL(statx, NEVER, NAME, 1),
    CALL(faccessat, NEVER, NAME, 1),
    CALL(faccessat2, NEVER, NAME, 1),
    CALL(getdents64, NEVER, FILE_NUMBER, 0),
    CALL(ioctl, NEVER, FILE_NUMBER, 0),
    CALL(mmap, NEVER, FILE_NUMBER, 4),
    CALL(munmap, NEVER, NOTHING, 0),
    CALL(mprotect, NEVER, NOTHING, 0),
    CALL(madvise, NEVER, NOTHING, 0),
    CALL(brk, NEVER, NOTHING, 0),
    CALL(futex, NEVER, NOTHING, 0),
    CALL(clone, NEVER, NOTHING, 0),
    CALL(clone3, NEVER, NOTHING, 0),
    CALL(execve, NEVER, NAME, 0),
    CALL(wait4, NEVER, NOTHING, 0),
    CALL(exit, NEVER, NOTHING, 0),
    CALL(exit_group, NEVER, NOTHING, 0),
};

static struct {
    bool changes_only;
    unsigned long kill_at;
    const char *from;
    FILE *log;
    bool counting;
    bool killing;
    unsigned long count;
    pid_t tasks[MOST_TASKS];
    int task_count;
} run;

static void fail(const char *what)
{
    fprintf(stderr, "killer: %s: %s\n", what, strerror(errno));
    exit(125);
}

/* Copy the string at ADDRESS of TASK, as far as it can be read and fits, page by page. */
static void read_text(pid_t task, uint64_t address, char *text)
{
    size_t length = 0;

    while (length < PATH_MAX) {
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

static void read_file_number(pid_t task, int number, char *text)
{
    char path[64];
    ssize_t length;

    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)task, number);
    length = readlink(path, text, TEXT - 1);
    text[length < 0 ? 0 : length] = '\0';
}

static bool is_ours_to_share(const char *file)
{
    return file[0] == '/' ? strncmp(file, "/dev/", 5) != 0 : strncmp(file, "socket:", 7) == 0;
}

static bool changes(const struct call *call, const uint64_t *arguments, const char *about)
{
    int flags = O_CREAT | O_TRUNC;

    switch (call->change) {
    case NEVER:
        return false;
    case ALWAYS:
        return true;
    case IF_CREATING:
        return (arguments[call->about + 1] & (uint64_t)flags) != 0;
    case IF_WRITING:
        return is_ours_to_share(about);
    case IF_LOCKING:
        return arguments[1] == F_SETLK || arguments[1] == F_SETLKW || arguments[1] == F_OFD_SETLK ||
               arguments[1] == F_OFD_SETLKW;
    }
    return true;
}

static const struct call *find_call(uint64_t number)
{
    for (size_t n = 0; n < sizeof CALLS / sizeof *CALLS; n++)
        if (CALLS[n].number == (long)number)
            return &CALLS[n];
    return NULL;
}

static bool opens(const struct call *call, const char *path)
{
    return call->change == IF_CREATING && strcmp(path, run.from) == 0;
}

/* Look at the call that TASK is about to make; return whether to kill instead. */
static bool at_call(pid_t task)
{
    static const struct call OTHER = { 0, NULL, NEVER, NOTHING, 0 };
    struct __ptrace_syscall_info info;
    const struct call *call;
    char about[TEXT] = "";
    char number[32];
    bool change;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, task, sizeof info, &info) < 0)
        return false; /* It was killed by somebody else. */
    call = find_call(info.seccomp.nr);
    if (call == NULL)
        call = &OTHER;
    if (!run.counting && call->change != IF_CREATING)
        return false;
    if (call->kind == NAME)
        read_text(task, info.seccomp.args[call->about], about);
    else if (call->kind == FILE_NUMBER)
        read_file_number(task, (int)info.seccomp.args[call->about], about);
    if (!run.counting && !opens(call, about))
        return false;
    run.counting = true;
    change = changes(call, info.seccomp.args, about);
    if (run.changes_only && !change)
        return false;
    run.count++;
    snprintf(number, sizeof number, "%lu", (unsigned long)info.seccomp.nr);
    if (run.log != NULL)
        fprintf(run.log, "%lu\t%c\t%s\t%s\n", run.count, change ? 'c' : '-',
                call->name != NULL ? call->name : number, about);
    return run.count == run.kill_at;
}

static void remember(pid_t task)
{
    for (int n = 0; n < run.task_count; n++)
        if (run.tasks[n] == task)
            return;
    if (run.task_count == MOST_TASKS) {
        errno = EAGAIN;
        fail("too many threads");
    }
    run.tasks[run.task_count++] = task;
}

static void forget(pid_t task)
{
    for (int n = 0; n < run.task_count; n++)
        if (run.tasks[n] == task)
            run.tasks[n] = run.tasks[--run.task_count];
}

static void kill_all(void)
{
    run.killing = true;
    for (int n = 0; n < run.task_count; n++)
        kill(run.tasks[n], SIGKILL);
}

/* Let TASK, which has stopped with STATUS, go on, or end all. */
static void at_stop(pid_t task, int status)
{
    int event = status >> 16;
    int signal = event == 0 ? WSTOPSIG(status) : 0;

    remember(task);
    if (run.killing) {
        kill(task, SIGKILL);
        return;
    }
    if (event == PTRACE_EVENT_SECCOMP && at_call(task)) {
        kill_all();
        return;
    }
    if (event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP)
        ptrace(PTRACE_LISTEN, task, 0, 0);
    else
        ptrace(PTRACE_CONT, task, 0, signal);
}

/* Be the command, once somebody watches. */
static void become(char **command, int go)
{
    struct sock_filter all[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE) };
    struct sock_fprog filter = { 1, all };
    char byte;

    if (read(go, &byte, 1) != 1)
        _exit(125);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("PR_SET_NO_NEW_PRIVS");
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0)
        fail("seccomp");
    execvp(command[0], command);
    fail(command[0]);
}

static pid_t start(char **command)
{
    const long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                         PTRACE_O_TRACEEXEC | PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL;
    int go[2];
    pid_t child;

    if (pipe2(go, O_CLOEXEC) < 0 || (child = fork()) < 0)
        fail("fork");
    if (child == 0)
        become(command, go[0]);
    if (ptrace(PTRACE_SEIZE, child, 0, options) < 0 || write(go[1], "", 1) != 1)
        fail("PTRACE_SEIZE");
    close(go[0]);
    close(go[1]);
    return child;
}

static void read_options(int count, char **words)
{
    int option;

    while ((option = getopt(count, words, "+cn:f:l:")) != -1) {
        if (option == 'c')
            run.changes_only = true;
        else if (option == 'n')
            run.kill_at = strtoul(optarg, NULL, 10);
        else if (option == 'f')
            run.from = optarg;
        else if (option != 'l' || (run.log = fopen(optarg, "we")) == NULL)
            fail("options");
    }
    if (optind == count) {
        errno = EINVAL;
        fail("no command");
    }
}

int main(int count, char **words)
{
    int status, ended = 0;
    pid_t child, task;

    read_options(count, words);
    run.counting = run.from == NULL;
    /* Who outlives its parent comes to us, so that we know when all are gone. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        fail("PR_SET_CHILD_SUBREAPER");
    child = start(words + optind);
    while ((task = waitpid(-1, &status, __WALL)) > 0) {
        if (WIFSTOPPED(status)) {
            at_stop(task, status);
            continue;
        }
        forget(task);
        if (task == child)
            ended = status;
    }
    if (run.log != NULL && fclose(run.log) != 0)
        fail("the log");
    return WIFSIGNALED(ended) ? 128 + WTERMSIG(ended) : WEXITSTATUS(ended);
}
