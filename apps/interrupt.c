#include "interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

/* A signal handler can reach nothing else. */
static volatile sig_atomic_t arrived;

static void note(int number)
{
    arrived = number;
}

/* Nothing of the process can be trusted to go on, so it ends here, with a sentence. */
static void mapped_file_lost(int number)
{
    static const char text[] =
        "sluice: a mapped file could not be read: it was cut while it was in use, or the drive "
        "failed; nothing was lost but this run\n";
    (void)number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(EXIT_FAILURE);
    _exit(EXIT_FAILURE);
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
    struct sigaction lost = {.sa_handler = mapped_file_lost};
    sigemptyset(&lost.sa_mask);
    sigaction(SIGBUS, &lost, NULL);
}

int interrupt_signal(void)
{
    return arrived;
}
