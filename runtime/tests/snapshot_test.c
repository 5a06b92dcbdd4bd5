/* What is read of users and groups in the index, and what is not believed. */
#include "../files.h"
#include "../identity.h"
#include "../snapshot.h"
#include "cdb_make.h"

#define ANN "v=1\nname=ann\ngid=100\ngecos=Ann,,,\nhome=/home/ann\nshell=/bin/zsh\n" \
            "group=100=users\ngroup=2000=project\n"

static struct cdb_make cdb;
static char nothing[] = "";

/* Add what stands under NUL `name`. */
static void add(const char *name, const char *fields)
{
    static char value[20000];
    char key[64] = "";
    size_t length = 1 + strlen(name);

    snprintf(value, sizeof value, "%s", fields);
    memcpy(key + 1, name, strlen(name));
    cdb_add_bytes(&cdb, key, length, value, cdb_seal_bytes(key, length, value));
}

static int open_index(void)
{
    cdb_end(&cdb);
    return cdb_file(cdb.bytes, cdb.size);
}

static enum index_answer read_user(const char *fields, struct snapshot_user *user)
{
    enum index_answer answer;
    const char *why = NULL;
    int fd;

    memset(&cdb, 0, sizeof cdb);
    add("u1000", fields);
    fd = open_index();
    answer = snapshot_user(fd, 1000, user, &why);
    close(fd);
    CHECK(answer != INDEX_DAMAGED || (why != NULL && why[0] != '\0'));
    return answer;
}

static void a_user_is_read(void)
{
    struct snapshot_user user;

    CHECK(read_user(ANN "later=unknown\n", &user) == INDEX_FOUND);
    CHECK(strcmp(user.name, "ann") == 0 && user.gid == 100 && strcmp(user.gecos, "Ann,,,") == 0);
    CHECK(strcmp(user.home, "/home/ann") == 0 && strcmp(user.shell, "/bin/zsh") == 0);
    CHECK(user.group_count == 2 && user.groups[1].gid == 2000);
    CHECK(strcmp(user.groups[0].name, "users") == 0);
    CHECK(read_user("v=1\nname=domain\\a b\ngid=4294967294\n", &user) == INDEX_FOUND);
    CHECK(user.gecos[0] == '\0' && strcmp(user.home, "/") == 0);
    CHECK(strcmp(user.shell, "/bin/sh") == 0 && user.group_count == 0);
    CHECK(read_user("v=2\nname=ann\n", &user) == INDEX_ABSENT);
}

static void what_would_break_a_line_is_damage(void)
{
    static const char *const broken[] = {
        "", "v=1\n", "v=1\nname=ann\n", "v=1\ngid=1\n", "v=1\nname=\ngid=1\n",
        "v=1\nname=a:b\ngid=1\n", "v=1\nname=-a\ngid=1\n", "v=1\nname=+\ngid=1\n",
        "v=1\nname=#a\ngid=1\n", "v=1\nname= a\ngid=1\n", "v=1\nname=a \ngid=1\n",
        "v=1\nname=a,b\ngid=1\n", "v=1\nname=a/b\ngid=1\n", "v=1\nname=a\tb\ngid=1\n",
        "v=1\nname=a\x7f\ngid=1\n", "v=1\nname=a\ngid=\n", "v=1\nname=a\ngid=-1\n",
        "v=1\nname=a\ngid=4294967295\n", "v=1\nname=a\ngid=99999999999\n",
        "v=1\nname=a\ngid=1x\n", "v=1\nname=a\ngid=1\nname=b\n", "v=1\nname=a\ngid=1\ngid=1\n",
        "v=1\nname=a\ngid=1\nhome=relative\n", "v=1\nname=a\ngid=1\nhome=/a:b\n",
        "v=1\nname=a\ngid=1\nshell=sh\n", "v=1\nname=a\ngid=1\ngecos=a:b\n",
        "v=1\nname=a\ngid=1\ngecos=\x1b[2J\n", "v=1\nname=a\ngid=1\nhome=/\nhome=/\n",
        "v=1\nname=a\ngid=1\ngroup=\n", "v=1\nname=a\ngid=1\ngroup=x\n",
        "v=1\nname=a\ngid=1\ngroup=1\n", "v=1\nname=a\ngid=1\ngroup=1=\n",
        "v=1\nname=a\ngid=1\ngroup==x\n", "v=1\nname=a\ngid=1\ngroup=4294967295=x\n",
        "v=1\nname=a\ngid=1\ngroup=1=a:b\n", "v=1\nname=a\ngid=1\nword\n",
    };
    struct snapshot_user user;

    for (size_t at = 0; at < sizeof broken / sizeof broken[0]; at++) {
        if (read_user(broken[at], &user) == INDEX_DAMAGED && user.groups == NULL)
            continue;
        fprintf(stderr, "accepted: %s\n", broken[at]);
        exit(EXIT_FAILURE);
    }
}

static void a_newline_in_a_text_is_damage(void)
{
    static const char key[] = "\0u1000", body[] = "v=1\0name=a\0gid=1\0gecos=x\nroot:x:0:0::/:/";
    size_t key_length = sizeof key - 1, length = sizeof body;
    char value[128];
    struct snapshot_user user;
    const char *why;
    int fd;

    memset(&cdb, 0, sizeof cdb);
    memcpy(value, body, length);
    snprintf(value + length, 14, "sum=%08x",
             (unsigned)cdb_crc(value, length, cdb_crc("", 1, cdb_crc(key, key_length, 0))));
    cdb_add_bytes(&cdb, key, key_length, value, length + 13);
    fd = open_index();
    CHECK(snapshot_user(fd, 1000, &user, &why) == INDEX_DAMAGED);
    CHECK(strcmp(why, "a text that breaks a line of passwd") == 0);
    close(fd);
}

static void more_groups_than_a_user_has_are_damage(void)
{
    static char fields[16384];
    struct snapshot_user user;
    size_t length = (size_t)snprintf(fields, sizeof fields, "v=1\nname=a\ngid=1\n");

    for (int count = 0; count < SNAPSHOT_GROUPS_MOST; count++)
        length += (size_t)snprintf(fields + length, sizeof fields - length, "group=1=x\n");
    CHECK(read_user(fields, &user) == INDEX_FOUND);
    CHECK(user.group_count == SNAPSHOT_GROUPS_MOST);
    snprintf(fields + length, sizeof fields - length, "group=1=x\n");
    CHECK(read_user(fields, &user) == INDEX_DAMAGED);
}

static void a_group_is_read(void)
{
    const char *name, *why;
    int fd;

    memset(&cdb, 0, sizeof cdb);
    add("g5", "v=1\nname=tty\nx=y\n");
    add("g6", "v=1\nname=a\nname=b\n");
    add("g7", "v=1\nx=y\n");
    add("g8", "v=1\nname=a:b\n");
    fd = open_index();
    CHECK(snapshot_group(fd, 5, &name, &why) == INDEX_FOUND && strcmp(name, "tty") == 0);
    for (gid_t gid = 6; gid <= 8; gid++)
        CHECK(snapshot_group(fd, gid, &name, &why) == INDEX_DAMAGED);
    CHECK(snapshot_group(fd, 9, &name, &why) == INDEX_ABSENT);
    close(fd);
}

static void gives(char *text, const char *wanted)
{
    if (strcmp(text, wanted) != 0) {
        fprintf(stderr, "got:\n%swanted:\n%s", text, wanted);
        exit(EXIT_FAILURE);
    }
    free(text);
}

static void the_index_goes_before_the_host_and_numbers_come_last(void)
{
    static char passwd[] = "host:x:1000:1000::/host:/bin/sh\n";
    static char group[] = "hosts:x:100:\nlocal:x:3000:\nproject_of_host:x:2000:\n";
    gid_t groups[] = {100, 2000, 2500, 3000, 4000};
    struct identity who = {.uid = 1000, .gid = 100, .groups = groups, .group_count = 5};
    const char *why;
    int fd;

    memset(&cdb, 0, sizeof cdb);
    add("u1000", ANN);
    add("g2500", "v=1\nname=given\n");
    fd = open_index();
    /* Once more, as after an error that has passed. */
    for (int time = 0; time < 2; time++)
        CHECK(identity_lookup(&who, fd, &why) == INDEX_FOUND);
    close(fd);
    identity_from(&who, passwd, group, "zoe", "/home/x");
    CHECK(strcmp(who.home, "/home/ann") == 0);
    gives(identity_passwd(&who, ""), "ann:x:1000:100:Ann,,,:/home/ann:/bin/zsh\n");
    gives(identity_group(&who, ""), "users:x:100:\nproject:x:2000:ann\ngiven:x:2500:ann\n"
                                    "local:x:3000:ann\ng4000:x:4000:ann\n");
    who.most_groups = 2;
    gives(identity_group(&who, ""), "users:x:100:\nproject:x:2000:ann\ngiven:x:2500:ann\n");
}

static void a_user_that_is_not_published_has_the_hosts_name_and_published_groups(void)
{
    static char passwd[] = "host:x:1000:1000::/host:/bin/sh\n";
    gid_t groups[] = {2500};
    struct identity who = {.uid = 1000, .gid = 100, .groups = groups, .group_count = 1};
    const char *why;
    int fd;

    memset(&cdb, 0, sizeof cdb);
    add("g100", "v=1\nname=users\n");
    add("g2500", "v=1\nname=given\n");
    fd = open_index();
    CHECK(identity_lookup(&who, fd, &why) == INDEX_FOUND);
    close(fd);
    identity_from(&who, passwd, nothing, NULL, NULL);
    gives(identity_passwd(&who, ""), "host:x:1000:1000::/host:/bin/sh\n");
    gives(identity_group(&who, ""), "users:x:100:\ngiven:x:2500:host\n");
}

static void what_is_damaged_is_said(void)
{
    gid_t groups[] = {7};
    struct identity who = {.uid = 1000, .gid = 100, .groups = groups, .group_count = 1};
    const char *why = NULL;
    int fd;

    memset(&cdb, 0, sizeof cdb);
    add("u1000", ANN);
    add("g7", "v=1\nname=\n");
    fd = open_index();
    CHECK(identity_lookup(&who, fd, &why) == INDEX_DAMAGED);
    CHECK(strcmp(why, "no name at the group 7") == 0);
    close(fd);
}

int main(void)
{
    a_user_is_read();
    what_would_break_a_line_is_damage();
    a_newline_in_a_text_is_damage();
    more_groups_than_a_user_has_are_damage();
    a_group_is_read();
    the_index_goes_before_the_host_and_numbers_come_last();
    a_user_that_is_not_published_has_the_hosts_name_and_published_groups();
    what_is_damaged_is_said();
    puts("snapshot: all claims hold");
    return EXIT_SUCCESS;
}
