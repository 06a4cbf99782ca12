#include "units.h"

#include <inttypes.h>
#include <stdio.h>

static void scaled(uint64_t n, double base, const char *const *units, char *text)
{
    double value = (double)n;
    int unit = 0;
    /* 999.5 would print as 1000. */
    while (value >= (base < 1024 ? 999.5 : 1023.5) && units[unit + 1]) {
        value /= base;
        unit++;
    }
    int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    if (unit == 0) {
        snprintf(text, UNITS_CAP, "%" PRIu64 "%s", n, units[0]);
    } else {
        snprintf(text, UNITS_CAP, "%.*f%s", decimals, value, units[unit]);
    }
}

void units_bytes(uint64_t bytes, char text[UNITS_CAP])
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", NULL};
    scaled(bytes, 1024, units, text);
}

void units_count(uint64_t n, char text[UNITS_CAP])
{
    static const char *const units[] = {"", " K", " M", " G", " T", NULL};
    scaled(n, 1000, units, text);
}
