#include "sweep.h"

#include "state.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void sweep_own(const struct node *node, const char *name, pid_t founder)
{
    int file = openat(node->directory, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    struct state state;

    if (file < 0)
        return;
    if (state_lock(file, F_WRLCK, 1) == 0 && state_is_there(file)) {
        state_read(&state, file);
        if (!state.ready || state.founder == founder)
            unlinkat(node->directory, name, 0);
    }
    close(file);
}

static void sweep_one(const struct node *node, const char *name)
{
    int file = openat(node->directory, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct namespaces namespaces;
    struct state state;

    if (file < 0)
        return;
    /* Who is founding holds the lock. */
    if (state_lock(file, F_WRLCK, 0) == 0 && state_is_there(file)) {
        state_read_whole(&state, file);
        if (!state.ready || state_open(&state, &namespaces) < 0) {
            unlinkat(node->directory, name, 0);
        } else {
            close(namespaces.user);
            close(namespaces.mount);
        }
    }
    close(file);
}

void sweep_dead(const struct node *node, const char *except)
{
    DIR *directory = node_list(node);
    struct dirent *entry;

    if (directory == NULL)
        return;
    while ((entry = readdir(directory)) != NULL)
        if (strncmp(entry->d_name, "c.", 2) == 0 && strcmp(entry->d_name, except) != 0)
            sweep_one(node, entry->d_name);
    closedir(directory);
}
