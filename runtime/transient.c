#include "transient.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_PAUSE_MS = 20, LONGEST_PAUSE_MS = 1000, PATIENCE_MS = 5000 };

/* What clients of NFS, Lustre, GPFS and GlusterFS say while a server is away, fails over, or has
   forgotten them; and what says nothing of the file. */
static const int TRANSIENT[] = {
    ESTALE,      EIO,          ETIMEDOUT,    ENOTCONN, ECONNREFUSED, ECONNRESET,
    ECONNABORTED, EHOSTDOWN,   EHOSTUNREACH, ENETDOWN, ENETUNREACH,  ENETRESET,
    EREMOTEIO,   ESHUTDOWN,    EKEYEXPIRED,  ENOLCK,   EAGAIN,       EINTR,
};

int is_transient(int error)
{
    for (size_t at = 0; at < sizeof TRANSIENT / sizeof TRANSIENT[0]; at++)
        if (TRANSIENT[at] == error)
            return 1;
    return 0;
}

int transient_wait(long *waited)
{
    long pause = FIRST_PAUSE_MS + *waited;
    struct timespec nap;

    pause = pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS;
    if (*waited + pause > PATIENCE_MS)
        return 0;
    nap = (struct timespec){pause / 1000, pause % 1000 * 1000000};
    nanosleep(&nap, NULL);
    *waited += pause;
    return 1;
}

int transient_fstat(int file, struct stat *status)
{
    long waited = 0;

    while (fstat(file, status) < 0)
        if (!is_transient(errno) || !transient_wait(&waited))
            return -1;
    return 0;
}

ssize_t transient_pread(int file, void *bytes, size_t length, off_t position)
{
    size_t done = 0;
    long waited = 0;

    while (done < length) {
        ssize_t got = pread(file, (char *)bytes + done, length - done, position + (off_t)done);

        if (got == 0)
            break;
        if (got > 0)
            done += (size_t)got;
        else if (!is_transient(errno) || (errno != EINTR && !transient_wait(&waited)))
            return -1;
    }
    return (ssize_t)done;
}
