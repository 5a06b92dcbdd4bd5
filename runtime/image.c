#include "image.h"

#include "detached.h"
#include "fail.h"
#include "rlimits.h"
#include "prepared.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define FUSE_HINT "this node must allow FUSE to users (root: modprobe fuse; chmod 666 /dev/fuse)"

void image_open(struct image *image, uid_t uid, const char *id, int use_root_mount, int file)
{
    int go[2], errors[2];

    snprintf(image->server.id, sizeof image->server.id, "%s", id);
    image->server.fuse = image->errors = -1;
    if (use_root_mount && prepared_find(image->prepared, uid, id))
        return;
    image->prepared[0] = '\0';
    image->server.image = file;
    server_find(&image->server);
    image->server.fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (image->server.fuse < 0)
        fail(errno, FUSE_HINT, "cannot open '/dev/fuse'");
    MUST(pipe2(go, O_CLOEXEC), "cannot start the image's server");
    MUST(pipe2(errors, O_CLOEXEC), "cannot start the image's server");
    image->server.go = go[0];
    image->server.errors = errors[1];
    image->go = go[1];
    image->errors = errors[0];
}

void image_started(struct image *image)
{
    if (image->prepared[0] != '\0')
        return;
    close(image->server.go);
    close(image->server.errors);
}

void image_mount(struct image *image, const char *target)
{
    char options[128];

    if (image->prepared[0] != '\0') {
        /* Its flags are root's, and locked: read-only, no set-uid programs, no devices. */
        MUST(mount(image->prepared, target, NULL, MS_BIND | MS_REC, NULL),
             "cannot use the mount '%s'", image->prepared);
        return;
    }
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u", image->server.fuse,
             geteuid(), getegid());
    if (mount("shifter", target, "fuse.shifter", MS_RDONLY | MS_NOSUID | MS_NODEV, options) <
        0)
        fail(errno, FUSE_HINT, "cannot mount the image");
    send_byte(image->go, 'g');
    close(image->go);
    /* From here on only the server and its keeper hold the connection. */
    close(image->server.fuse);
}

/* The last line that the server said; it has ended, or will not be waited for. */
static void last_words(int errors, char text[1024])
{
    struct pollfd ready = {errors, POLLIN, 0};
    size_t length = 0;
    ssize_t got = 1;
    char *line;

    while (got > 0 && length < 1023 && poll(&ready, 1, 1000) > 0) {
        got = read(errors, text + length, 1023 - length);
        length += got > 0 ? (size_t)got : 0;
    }
    while (length > 0 && text[length - 1] == '\n')
        length--;
    text[length] = '\0';
    line = strrchr(text, '\n');
    if (line != NULL)
        memmove(text, line + 1, strlen(line));
}

int image_wait(const struct image *image, const char *target)
{
    struct stat status;

    /* The kernel lets nobody in before the server has answered it, so this is the whole wait. */
    return image->prepared[0] != '\0' ? 0 : stat(target, &status);
}

/* Whether a program that said `text` was refused memory, a process or a descriptor. */
static int is_limited(const char *text)
{
    static const int errors[] = {ENOMEM, EAGAIN, EMFILE, ENFILE};

    for (size_t at = 0; at < sizeof errors / sizeof errors[0]; at++)
        if (strstr(text, strerror(errors[at])) != NULL)
            return 1;
    return 0;
}

void image_fail(const struct image *image, int error)
{
    char text[1024];

    last_words(image->errors, text);
    if (text[0] == '\0') {
        const char *advice = rlimits_hint();

        fail(error, advice != NULL ? advice : "was it killed? see the kernel's log: dmesg",
             "the image's server '%s' ended before it had read the image",
             server_name(&image->server));
    }
    fail(error,
         is_limited(text) ? rlimits_hint() : "is the image damaged? see shifter-admin verify",
         "cannot read the image: '%s' said '%s'", server_name(&image->server), text);
}
