#include "hooks.h"

#include "fail.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int wait_for(pid_t child, const struct module *module)
{
    int status = 0;

    while (waitpid(child, &status, __WALL) < 0)
        if (errno != EINTR)
            fail(errno, NULL, "cannot wait for the hook of the module '%s'", module->name);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Run the hook in a child, wait, and end as it did. */
static _Noreturn void be_parent_of_hook(const struct module *module)
{
    char *const argv[] = {(char *)"/bin/sh", (char *)module->userhook, NULL};
    char *const environment[] = {NULL};
    struct sigaction wait = {.sa_handler = SIG_DFL}, callers;
    pid_t child;

    MUST(sigaction(SIGCHLD, &wait, &callers), "cannot wait for hooks");
    child = fork();
    MUST(child, "cannot run the hook of the module '%s'", module->name);
    if (child == 0) {
        sigaction(SIGCHLD, &callers, NULL);
        execve(argv[0], argv, environment);
        fail(errno, NULL, "cannot execute '/bin/sh' in the container");
    }
    _exit(wait_for(child, module));
}

/* The launcher's own child executes nothing, and ends without a signal: the caller may ignore
   SIGCHLD, and then could not be waited for, or have blocked it, and then it would be pending for
   the application. */
static int run_and_wait(const struct module *module)
{
    pid_t child = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);

    MUST(child, "cannot run the hook of the module '%s'", module->name);
    if (child == 0)
        be_parent_of_hook(module);
    return wait_for(child, module);
}

static void run_hook(const struct module *module)
{
    int status = run_and_wait(module);

    if (status != 0)
        fail(0, "ask the site, or choose other modules with --module",
             "failed to set up the module '%s': its hook '%s' ended with %d", module->name,
             module->userhook, status);
}

void hooks_run(const struct module *const *chosen)
{
    for (; *chosen != NULL; chosen++)
        if ((*chosen)->userhook != NULL)
            run_hook(*chosen);
}
