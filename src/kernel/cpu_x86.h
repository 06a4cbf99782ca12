/* What an x86 processor and its system offer, from the words that they say it in. */
#ifndef SLUICE_KERNEL_CPU_X86_H
#define SLUICE_KERNEL_CPU_X86_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What x86's CPUID says: register b of leaf 0 (the vendor's first letters), c of leaf 1, b and c of
 * leaf 7 part 0, a of leaf 7 part 1; 0 for a leaf or part that there is not.
 */
struct cpuid_words {
    uint32_t b0, c1, b7, c7, a71;
};
/* Whether the system has switched on XGETBV, without which xcr0 cannot be read and counts as 0. */
bool cpu_x86_has_xcr0(const struct cpuid_words *w);
/* The features of that processor under a system that saves the state in xcr0 (its low half). */
uint32_t cpu_x86_features(const struct cpuid_words *w, uint32_t xcr0);

#endif
