#include "memo.h"

#include "files.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The first lines, which say what of; what follows is the value. */
static char *header(const char *store, const char *name)
{
    char *text = NULL;

    return asprintf(&text, "shifter name 2\n%s\n%s\n", store, name) < 0 ? NULL : text;
}

int memo_parse(char *text, size_t length, const char *store, const char *name, struct memo *memo)
{
    char *start = header(store, name);
    size_t head = start == NULL ? 0 : strlen(start);
    int is_ours = start != NULL && length > head && memcmp(text, start, head) == 0;
    int scanned = 0;

    free(start);
    if (!is_ours || sscanf(text + head, "%19" SCNu64 " %16" SCNx64 "%n", &memo->generation, &memo->directory,
               &scanned) != 2 ||
        text[head + (size_t)scanned] != '\n')
        return 0;
    head += (size_t)scanned + 1;
    memo->value = (struct value){text + head, length - head, ""};
    return 1;
}

int memo_read(const struct node *node, const char *store, const char *name, struct memo *memo)
{
    char *start = header(store, name), file[NODE_FILE_NAME], *text;
    ssize_t length;
    int fd;

    if (start == NULL || node->directory < 0)
        return 0;
    node_file_name(file, 'n', start, strlen(start));
    free(start);
    fd = openat(node->directory, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0;
    text = must_allocate(1, TEXT_MAX + 1);
    length = read(fd, text, TEXT_MAX);
    close(fd);
    return length > 0 && memo_parse(text, (size_t)length, store, name, memo);
}

static int write_all(int fd, const char *start, const struct memo *memo)
{
    char number[48];
    int digits = snprintf(number, sizeof number, "%" PRIu64 " %" PRIx64 "\n", memo->generation,
                          memo->directory);

    return write(fd, start, strlen(start)) == (ssize_t)strlen(start) &&
           write(fd, number, (size_t)digits) == digits &&
           write(fd, memo->value.bytes, memo->value.length) == (ssize_t)memo->value.length;
}

void memo_write(const struct node *node, const char *store, const char *name,
                const struct memo *memo)
{
    char *start = header(store, name), file[NODE_FILE_NAME], temporary[NODE_FILE_NAME + 16];
    int fd, whole;

    if (start == NULL || node->directory < 0)
        return;
    node_file_name(file, 'n', start, strlen(start));
    snprintf(temporary, sizeof temporary, "%s.%d", file, getpid());
    fd = openat(node->directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        whole = write_all(fd, start, memo);
        close(fd);
        if (!whole || renameat(node->directory, temporary, node->directory, file) < 0)
            unlinkat(node->directory, temporary, 0);
    }
    free(start);
}
