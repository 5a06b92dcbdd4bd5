#include "site_hooks.h"

#include "detached.h"
#include "fail.h"
#include "helper.h"
#include "hook_mounts.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Shifter's hooks have no environment; bash would then search the present directory, too. */
#define HOOK_PATH "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

struct hook {
    const struct plan *plan;
    const char *script, *key; /* of udiRoot.conf */
};

int site_hooks_see_mounts(const struct plan *plan)
{
    for (const struct module **at = plan->modules; *at != NULL; at++)
        if ((*at)->roothook != NULL)
            return 1;
    return plan->config->post_hook != NULL;
}

int site_hooks_are_asked(const struct plan *plan)
{
    return plan->config->pre_hook != NULL || site_hooks_see_mounts(plan);
}

static void write_script(const char *script, FILE *out)
{
    struct stat status;

    if (script == NULL)
        return;
    if (stat(script, &status) < 0)
        memset(&status, 0, sizeof status);
    fprintf(out, "hook=%zu:%s %ju:%ju %jd %jd.%09ld\n", strlen(script), script,
            (uintmax_t)status.st_dev, (uintmax_t)status.st_ino, (intmax_t)status.st_size,
            (intmax_t)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

void site_hooks_key(const struct plan *plan, FILE *out)
{
    write_script(plan->config->pre_hook, out);
    write_script(plan->config->post_hook, out);
    for (const struct module **at = plan->modules; *at != NULL; at++)
        write_script((*at)->roothook, out);
}

static void check_script(const struct hook *hook)
{
    int fd = open(hook->script, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        fail(errno, hint("'%s' of '%s' names it", hook->key, hook->plan->config->path),
             "cannot read the hook '%s'", hook->script);
    if (!S_ISREG(status.st_mode))
        fail(0, hint("'%s' of '%s' names it", hook->key, hook->plan->config->path),
             "the hook '%s' is no file", hook->script);
    close(fd);
}

/* It has nothing of the caller's but the standard error, to which its output goes, too. */
static _Noreturn void execute(const struct hook *hook, const char *place)
{
    char *const argv[] = {(char *)"/bin/sh", (char *)hook->script, NULL};
    char *const environment[] = {(char *)HOOK_PATH, NULL};

    detach(NULL, 0, STDERR_FILENO);
    helper_reset_signals();
    MUST(dup2(STDERR_FILENO, STDOUT_FILENO), "cannot give the hook its output");
    MUST(chdir(place), "cannot enter the root being built");
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "cannot drop privileges");
    execve(argv[0], argv, environment);
    fail(errno, NULL, "cannot execute '/bin/sh'");
}

/* The first process of a PID namespace: with it ends all that a hook has left in the background, and
   it ends with the launcher. */
static _Noreturn void be_first(const struct hook *hook, const char *place)
{
    int status = 0;
    pid_t child;

    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "cannot follow the launcher");
    signal(SIGCHLD, SIG_DFL);
    child = fork();
    if (child == 0)
        execute(hook, place);
    if (child < 0)
        fail_to_fork(errno, "cannot run a hook");
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            fail(errno, NULL, "cannot wait for a hook");
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static int run_and_wait(const struct hook *hook, const char *place)
{
    pid_t child = (pid_t)syscall(SYS_clone, CLONE_NEWPID, 0, 0, 0, 0);
    int status = 0;

    if (child < 0)
        fail(errno, "may you have a PID namespace? see: sysctl user.max_pid_namespaces",
             "cannot run the hook '%s'", hook->script);
    if (child == 0)
        be_first(hook, place);
    while (waitpid(child, &status, __WALL) < 0)
        if (errno != EINTR)
            fail(errno, NULL, "cannot wait for the hook '%s'", hook->script);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void run_at(const struct hook *hook, const char *place)
{
    int status = run_and_wait(hook, place);

    if (status != 0)
        fail(0,
             "hooks run as the user: siteFs mounts what they cannot (docs/udiRoot.conf.md, Hooks)",
             "the hook '%s' (%s in '%s') ended with %d", hook->script, hook->key,
             hook->plan->config->path, status);
}

static void run(const struct plan *plan, const char *script, const char *key)
{
    const struct hook hook = {plan, script, key};
    struct hook_stage stage;

    if (script == NULL)
        return;
    check_script(&hook);
    hook_stage_begin(&stage, plan->config->udi_mount);
    run_at(&hook, stage.place);
    hook_stage_end(&stage, script, plan->config->slave, plan->writable != 0);
}

void site_hooks_before_mounts(const struct plan *plan)
{
    run(plan, plan->config->pre_hook, "sitePreMountHook");
}

void site_hooks_after_mounts(const struct plan *plan)
{
    run(plan, plan->config->post_hook, "sitePostMountHook");
}

void site_hooks_of_modules(const struct plan *plan)
{
    for (const struct module **at = plan->modules; *at != NULL; at++)
        if ((*at)->roothook != NULL)
            run(plan, (*at)->roothook, hint("module_%s_roothook", (*at)->name));
}
