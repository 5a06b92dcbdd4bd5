/* Release many processes at once, and say when the last of them is in its program.

       ranks start N COMMAND...     milliseconds until the last of N has printed the time, as
                                    `date +%s.%N` does; N commands that failed are an error
       ranks enter DIR COMMAND...   a floor: user namespace, a bind of DIR, pivot_root, exec
       ranks hold DIR               the same, then print the pid and stay
       ranks join PID COMMAND...    a floor: setns into what `hold` holds, exec                */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void rank(int go, int out, char **command)
{
    char byte;

    if (dup2(out, STDOUT_FILENO) < 0 || read(go, &byte, 1) != 0)
        err(1, "cannot wait");
    execvp(command[0], command);
    err(127, "cannot execute %s", command[0]);
}

static double last_of(FILE *times, int count)
{
    double last = 0, time;

    for (int at = 0; at < count; at++) {
        if (fscanf(times, "%lf", &time) != 1)
            errx(1, "%d of %d said when they began", at, count);
        if (time > last)
            last = time;
    }
    return last;
}

static int start(int count, char **command)
{
    int go[2], out[2], status, failed = 0;
    double released, last;

    if (pipe2(go, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        err(1, "pipe");
    for (int at = 0; at < count; at++) {
        pid_t child = fork();

        if (child < 0)
            err(1, "fork");
        if (child == 0) {
            close(go[1]);
            rank(go[0], out[1], command);
        }
    }
    close(out[1]);
    close(go[0]);
    usleep(20000);
    released = now();
    close(go[1]);
    last = last_of(fdopen(out[0], "r"), count);
    while (wait(&status) > 0)
        failed += status != 0;
    if (failed)
        errx(1, "%d of %d failed", failed, count);
    printf("%.3f\n", 1000 * (last - released));
    return 0;
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        err(1, "%s", path);
    close(fd);
}

static void enter(const char *directory)
{
    char uid[64], gid[64];

    snprintf(uid, sizeof uid, "%u %u 1", getuid(), getuid());
    snprintf(gid, sizeof gid, "%u %u 1", getgid(), getgid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        err(1, "unshare");
    put("/proc/self/setgroups", "deny");
    put("/proc/self/gid_map", gid);
    put("/proc/self/uid_map", uid);
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
        mount(directory, directory, NULL, MS_BIND | MS_REC, NULL) < 0 || chdir(directory) < 0 ||
        syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
        err(1, "%s", directory);
}

static void join(const char *pid)
{
    static const char *const names[] = {"user", "mnt"};
    int fds[2];

    for (int at = 0; at < 2; at++) {
        char path[64];

        snprintf(path, sizeof path, "/proc/%s/ns/%s", pid, names[at]);
        fds[at] = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (setns(fds[0], 0) < 0 || setns(fds[1], 0) < 0)
        err(1, "cannot join %s", pid);
}

int main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "start") == 0)
        return start(atoi(argv[2]), argv + 3);
    if (argc == 3 && strcmp(argv[1], "hold") == 0) {
        enter(argv[2]);
        printf("%d\n", getpid());
        fflush(stdout);
        return (int)read(STDIN_FILENO, argv[1], 1);
    }
    if (argc >= 4 && strcmp(argv[1], "enter") == 0)
        enter(argv[2]);
    else if (argc >= 4 && strcmp(argv[1], "join") == 0)
        join(argv[2]);
    else
        errx(2, "usage: ranks start N COMMAND... | enter DIR COMMAND... | hold DIR | join PID COMMAND...");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    execvp(argv[3], argv + 3);
    err(127, "cannot execute %s", argv[3]);
}
