#include "skeleton.h"

#include "fail.h"
#include "files.h"
#include "inside.h"

#include <string.h>
#include <sys/stat.h>

void skeleton_directory(const char *resolved)
{
    const char *end = resolved;
    char path[PATH_MAX], image[PATH_MAX];
    struct stat status;

    while (*end != '\0') {
        int length;

        end += 1 + strcspn(end + 1, "/");
        length = (int)(end - resolved);
        path_format(path, SKELETON_DIR "%.*s", length, resolved);
        path_format(image, IMAGE_DIR "%.*s", length, resolved);
        if (mkdir(path, 0755) == 0) {
            /* Of two directories laid over each other the upper one's mode counts. */
            if (lstat(image, &status) == 0 && S_ISDIR(status.st_mode))
                MUST(chmod(path, status.st_mode & 07777), "cannot make '%s'", path);
        } else if (errno != EEXIST) {
            fail(errno, NULL, "cannot make '%s'", path);
        }
    }
}

void skeleton_file(const char *resolved, const char *text)
{
    char path[PATH_MAX];

    path_format(path, SKELETON_DIR "%s", resolved);
    text_write(path, text);
}
