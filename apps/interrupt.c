#include "interrupt.h"

#include <signal.h>
#include <stddef.h>

/* A signal handler can reach nothing else. */
static volatile sig_atomic_t arrived;

static void note(int number)
{
    arrived = number;
}

void interrupt_install(void)
{
    /* Without SA_RESTART a read from a terminal ends too. */
    struct sigaction end = {.sa_handler = note, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&end.sa_mask);
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct sigaction old;
        /* A shell starts background jobs with SIGINT ignored, nohup ignores SIGHUP: that stays. */
        if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(ends[i], &end, NULL);
    }
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
}

int interrupt_signal(void)
{
    return arrived;
}
