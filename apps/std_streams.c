#include "std_streams.h"

#include <fcntl.h>
#include <unistd.h>

void std_streams_hold(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) != -1) continue;
        /* The wrong direction, so that what the caller closed is an error and not an empty file. */
        int held = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        (void)held; /* the lowest free number, which is fd */
    }
}
