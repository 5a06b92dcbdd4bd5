/* Serve an image as the launcher does, to a test that speaks the kernel's protocol itself, or by a
   mount of root's, until that is gone.

       serve_at IMAGE FD           to the descriptor FD, a socket
       serve_at IMAGE DIRECTORY    at a mount there

   PAGE_SIZE in the environment is the size of a page that the server believes in; what the image
   has at byte HUNG_AT is never read to its end, as on a filesystem whose server is gone. */
#include "../serve/fuse.h"

#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

long __real_sysconf(int name);
long __wrap_sysconf(int name);

long __wrap_sysconf(int name)
{
    const char *size = name == _SC_PAGESIZE ? getenv("PAGE_SIZE") : NULL;

    return size != NULL ? atol(size) : __real_sysconf(name);
}

ssize_t __real_pread(int file, void *bytes, size_t size, off_t offset);
ssize_t __wrap_pread(int file, void *bytes, size_t size, off_t offset);

ssize_t __wrap_pread(int file, void *bytes, size_t size, off_t offset)
{
    const char *hung = getenv("HUNG_AT");

    while (hung != NULL && offset == atol(hung))
        pause();
    return __real_pread(file, bytes, size, offset);
}

static int mount_at(const char *directory)
{
    char options[128];
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fuse < 0)
        err(1, "/dev/fuse");
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
    if (mount("shifter", directory, "fuse.shifter", MS_RDONLY | MS_NOSUID | MS_NODEV, options) < 0)
        err(1, "%s", directory);
    return fuse;
}

int main(int argc, char **argv)
{
    int image = argc == 3 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    struct service *service;

    if (image < 0)
        errx(2, "usage: serve_at IMAGE FD | DIRECTORY");
    service = fuse_open(image);
    fuse_serve(service, isdigit((unsigned char)argv[2][0]) ? atoi(argv[2]) : mount_at(argv[2]));
}
