#include "container.h"

#include "fail.h"
#include "keeper.h"
#include "state.h"
#include "sweep.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_empty(int file)
{
    struct stat status;

    return fstat(file, &status) == 0 && status.st_size == 0;
}

void container_join(const struct namespaces *namespaces)
{
    if (setns(namespaces->user, CLONE_NEWUSER) < 0)
        fail(errno, NULL, "cannot join the container's user namespace");
    if (setns(namespaces->mount, CLONE_NEWNS) < 0)
        fail(errno, NULL, "cannot join the container's mount namespace");
    container_pass(namespaces);
}

void container_pass(const struct namespaces *namespaces)
{
    close(namespaces->user);
    close(namespaces->mount);
}

enum outcome { JOIN, CREATE, AGAIN, ALONE };

/* The ranks that live are among those that were not read.  One of them is written down again, where
   the next launches will look. */
static enum outcome look_at_all(struct container *container)
{
    struct state state;

    state_read_whole(&state, container->file);
    if (state_open(&state, &container->namespaces) < 0)
        return CREATE;
    state_join(container->file, container->namespaces.rank);
    return JOIN;
}

/* With a lock on the file: what is to be done. */
static enum outcome look(struct container *container)
{
    struct state state;

    if (!state_is_there(container->file))
        return AGAIN;
    state_read(&state, container->file);
    if (!state.ready)
        return CREATE;
    if (state.key_length != container->key_length ||
        memcmp(state.key, container->key, state.key_length) != 0)
        return ALONE;
    if (state_open(&state, &container->namespaces) == 0) {
        state_join(container->file, 0);
        return JOIN;
    }
    return state.is_part ? look_at_all(container) : CREATE;
}

static int wait_for_lock(struct container *container, short type)
{
    if (state_lock(container->file, type, 0) == 0)
        return 0;
    container->has_waited = 1;
    return state_lock(container->file, type, 1);
}

/* Of launches that come at once one gets the lock for writing, and makes the container; the others
   sleep until it is ready, and then join together, for which a lock for reading is enough.  It is
   not enough if the maker has died: then they take turns. */
static enum outcome try(struct container *container)
{
    enum outcome outcome = CREATE;

    if (is_empty(container->file) && state_lock(container->file, F_WRLCK, 0) == 0)
        return look(container);
    if (wait_for_lock(container, F_RDLCK) < 0)
        return ALONE;
    outcome = look(container);
    if (outcome != CREATE)
        return outcome;
    if (state_lock(container->file, F_UNLCK, 0) < 0 || wait_for_lock(container, F_WRLCK) < 0)
        return ALONE;
    return look(container);
}

static enum outcome open_and_try(struct container *container, struct node *node)
{
    enum outcome outcome;

    container->file = openat(container->node.directory, container->name,
                             O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (container->file < 0 && errno == ENOENT) {
        /* The last keeper has removed the directory. */
        close(node->directory);
        node_open(node);
        container->node = *node;
        return node->directory < 0 ? ALONE : AGAIN;
    }
    if (container->file < 0)
        return ALONE;
    outcome = try(container);
    if (outcome == CREATE && ftruncate(container->file, 0) < 0)
        outcome = ALONE;
    if (outcome != CREATE)
        close(container->file);
    return outcome;
}

/* The container that is being founded, and by which process: children of ours end, too. */
static struct container *founded;
static pid_t founder;

/* A founder that fails before there is a keeper leaves no file. */
static void give_up(void)
{
    struct container *container = founded;

    if (container == NULL || getpid() != founder)
        return;
    container_leave(container);
    node_close(&container->node);
}

static void found(struct container *container)
{
    founded = container;
    founder = getpid();
    if (atexit(give_up) != 0)
        fail(ENOMEM, NULL, "cannot go on");
    /* Here, because from inside of a user namespace others' processes cannot be looked at. */
    sweep_dead(&container->node, container->name);
}

void container_alone(struct container *container)
{
    container->name[0] = '\0';
    container->file = -1;
}

enum container_role container_find(struct container *container, struct node *node,
                                   const char *key, size_t key_length)
{
    enum outcome outcome = AGAIN;

    container->node = *node;
    container->key = key;
    container->key_length = key_length;
    container->has_waited = 0;
    node_file_name(container->name, 'c', key, key_length);
    if (node->directory < 0)
        outcome = ALONE;
    while (outcome == AGAIN)
        outcome = open_and_try(container, node);
    if (outcome == JOIN)
        return CONTAINER_JOIN;
    if (outcome == ALONE)
        container_alone(container);
    else
        found(container);
    return CONTAINER_CREATE;
}

static void keep_private(struct container *container)
{
    warn("this container is not shared: no room in '%s'", container->node.path);
    unlinkat(container->node.directory, container->name, 0);
    keeper_begin(&container->keeper, 0, 0);
}

void container_ready(struct container *container)
{
    const struct keeper *keeper = &container->keeper;
    struct keeper_place place;
    int is_kept;

    keeper_started(keeper);
    if (container->name[0] == '\0') {
        keeper_begin(keeper, 0, 0);
        return;
    }
    founded = NULL;
    is_kept = keeper_place(keeper, &place);
    if (state_write(container->file, container->key, container->key_length,
                    is_kept ? &place : NULL) == 0)
        keeper_begin(keeper, 1, is_kept);
    else
        keep_private(container);
    /* Closing the file frees the lock: who waits finds it ready, or founds another. */
    close(container->file);
}

void container_leave(struct container *container)
{
    if (container->name[0] == '\0')
        return;
    unlinkat(container->node.directory, container->name, 0);
    close(container->file);
    founded = NULL;
}

/* Launches that wait for the lock find that the file has no name any more, and begin again. */
void container_hide(struct container *container)
{
    container_leave(container);
    container_alone(container);
}
