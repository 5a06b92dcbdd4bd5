#include "search.h"

#include "attempt.h"
#include "description.h"
#include "fail.h"
#include "files.h"
#include "resolve.h"
#include "snapshot.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEARCH_MS = 12000, TRIES = 3 };

/* What the child tells, one after the other. */
struct finding {
    enum { NO_GROUP, GROUP, IMAGE } is;
    gid_t gid;
    char id[ID_LENGTH + 1];
};

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

struct task {
    const struct search *search;
    const char *store, *name;
    int tell;
};

static void tell(int socket, const struct finding *finding, int file)
{
    struct iovec part = {(void *)(uintptr_t)finding, sizeof *finding};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    union control control;
    struct cmsghdr *head;

    if (file >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof file);
        memcpy(CMSG_DATA(head), &file, sizeof file);
    }
    MUST(sendmsg(socket, &message, MSG_NOSIGNAL), "cannot tell what was found");
}

/* Take the next message; 0 if there is none. */
static int hear(int socket, struct finding *finding, int *file)
{
    struct iovec part = {finding, sizeof *finding};
    union control control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *head = got == sizeof *finding ? CMSG_FIRSTHDR(&message) : NULL;

    if (head != NULL && head->cmsg_type == SCM_RIGHTS)
        memcpy(file, CMSG_DATA(head), sizeof *file);
    return got == sizeof *finding;
}

/* The newest index, open; -1 and what was found instead. */
static int open_index(const char *store, enum index_answer *answer)
{
    struct generation newest;
    char directory[PATH_MAX];
    int no_directory, index;

    path_format(directory, "%s/index", store);
    *answer = index_list(directory, &newest, &no_directory);
    if (*answer != INDEX_FOUND)
        return -1;
    index = index_open(&newest);
    close(newest.directory);
    if (index < 0)
        *answer = INDEX_UNREADABLE;
    return index;
}

/* The user's entry.  Root reads it: to be read by the user it would need the user's groups, which it
   tells.  The user gets nothing of it to see.  On a filesystem that gives root no rights, an index
   that is not for all to read cannot be read here, and only -G helps. */
static enum index_answer ask(const struct task *task, struct snapshot_user *user, const char **why)
{
    enum index_answer answer = INDEX_UNREADABLE;

    /* A generation may go between the two looks at its directory. */
    for (int tried = 0; tried < TRIES && answer == INDEX_UNREADABLE; tried++) {
        int index = open_index(task->store, &answer);

        if (index < 0)
            continue;
        answer = snapshot_user(index, task->search->uid, user, why);
        close(index);
    }
    return answer;
}

static _Noreturn void has_no_group(const struct task *task, enum index_answer answer,
                                   const char *why)
{
    if (answer == INDEX_DAMAGED)
        fail(0, "-G GID; shifter-admin verify", "the index of the store '%s' is damaged: %s",
             task->store, why);
    if (answer == INDEX_UNREADABLE)
        fail(errno, "-G GID, or let root read the index", "cannot read the index of the store '%s'",
             task->store);
    tell(task->tell, &(struct finding){.is = NO_GROUP}, -1);
    exit(EXIT_SUCCESS);
}

/* Be the user for good, with the groups of the entry. */
static void become(uid_t uid, gid_t gid, const struct snapshot_user *user)
{
    gid_t *groups = must_allocate(user->group_count + 1, sizeof *groups);

    groups[0] = gid;
    for (size_t at = 0; at < user->group_count; at++)
        groups[at + 1] = user->groups[at].gid;
    MUST(setgroups(user->group_count + 1, groups), "cannot become the user");
    MUST(setresgid(gid, gid, gid), "cannot become the user");
    MUST(setresuid(uid, uid, uid), "cannot become the user");
    /* It ends with the credentials of before. */
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL), "cannot become the user");
    free(groups);
}

/* A kernel's driver reads only what our worker has built. */
static void check_origin(const char *name, int file)
{
    struct description description;

    description_read(&description, file);
    if (!description.is_whole || description.is_imported)
        fail(0, "the launcher can run it without this program",
             "the image '%s' was made by a user: the kernel must not read it", name);
}

static void open_image(const struct task *task)
{
    const struct job job = {.image = task->name};
    const struct node none = {.directory = -1};
    struct finding finding = {.is = IMAGE};
    struct resolution found;
    int file;

    resolve_begin(&found, &job, task->store);
    do {
        resolve(&found, &none);
        file = resolve_open(&found);
    } while (file < 0);
    check_origin(task->name, file);
    memcpy(finding.id, found.record.id, sizeof finding.id);
    tell(task->tell, &finding, file);
}

static void look(void *with)
{
    const struct task *task = with;
    const struct search *search = task->search;
    struct snapshot_user user = {0};
    struct finding finding = {.is = GROUP, .gid = search->gid};
    const char *why = "";
    enum index_answer answer = ask(task, &user, &why);

    if (answer == INDEX_FOUND && !search->has_gid)
        finding.gid = user.gid;
    else if (!search->has_gid)
        has_no_group(task, answer, why);
    tell(task->tell, &finding, -1);
    become(search->uid, finding.gid, &user);
    if (task->name != NULL)
        open_image(task);
}

static void take(struct search *search, const struct finding *finding, const char *store)
{
    if (finding->is == NO_GROUP)
        fail(0, "-G GID, or let the service account publish the users: shifter-admin identity",
             "the store '%s' does not say which group the user %u has", store, search->uid);
    if (finding->is == GROUP) {
        search->has_gid = 1;
        search->gid = finding->gid;
    } else {
        memcpy(search->id, finding->id, sizeof search->id);
    }
}

void search_image(struct search *search, const char *store, const char *name)
{
    int ends[2];
    struct task task = {search, store, name, -1};
    struct finding finding;

    search->file = -1;
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "cannot begin");
    task.tell = ends[1];
    if (!attempt(look, &task, "looking for the image", SEARCH_MS))
        search->troubles++;
    close(ends[1]);
    while (hear(ends[0], &finding, &search->file))
        take(search, &finding, store);
    close(ends[0]);
}
