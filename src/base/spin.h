/*
 * Spinning before sleeping. Waking a sleeper takes tens of microseconds, on a virtual machine with
 * halted cores some hundred, which is more than most waits of a decoding step last. A waiter
 * therefore spins for as long as recent waits suggest it pays: patience is long while waits end
 * within LONG, and short after one that did not, so that an idle thread soon sleeps. The clock is
 * read after every few looks only: most waits are over before. After SHORT a waiter then offers its
 * core, too: where more threads want to run than there are cores, the one that it waits for may be
 * in the queue behind it.
 */
#ifndef SLUICE_BASE_SPIN_H
#define SLUICE_BASE_SPIN_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"

enum { SPIN_SHORT_NS = 30 * 1000, SPIN_LONG_NS = 2 * 1000 * 1000, SPIN_LOOKS = 8 };

/* What waiters of one kind have learnt; zeroed: short. Any thread may use it. */
struct patience {
    _Atomic bool is_long;
};

/* One wait. */
struct spin {
    uint64_t begin, now; /* now: when the clock was last read */
    uint32_t looks;
    bool is_long;
};

static inline void spin_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline struct spin spin_begin(struct patience *patience)
{
    uint64_t now = clock_ns();
    bool is_long = atomic_load_explicit(&patience->is_long, memory_order_relaxed);
    return (struct spin){.begin = now, .now = now, .is_long = is_long};
}

/* Whether a waiter that looks again after this call should; false: it should sleep. */
static inline bool spin_on(struct spin *spin)
{
    spin_relax();
    if (++spin->looks % SPIN_LOOKS) return true;
    spin->now = clock_ns();
    uint64_t ns = spin->now - spin->begin;
    if (ns < SPIN_SHORT_NS) return true;
    if (!spin->is_long || ns >= SPIN_LONG_NS) return false;
    sched_yield();
    return true;
}

/* The wait is over, slept through or not. Returns how long it took, less a few looks if short. */
static inline uint64_t spin_end(const struct spin *spin, struct patience *patience)
{
    bool is_short = spin->looks && spin->now - spin->begin < SPIN_SHORT_NS;
    uint64_t ns = (is_short ? spin->now : clock_ns()) - spin->begin;
    bool is_long = ns < SPIN_LONG_NS;
    if (is_long != spin->is_long)
        atomic_store_explicit(&patience->is_long, is_long, memory_order_relaxed);
    return ns;
}

#endif
