/* Numbers as people read them. */
#ifndef APPS_UNITS_H
#define APPS_UNITS_H

#include <stdint.h>

enum { UNITS_CAP = 32 };

/* "512 B", "1.50 KiB", "17.4 MiB": three digits, powers of 1024. */
void units_bytes(uint64_t bytes, char text[UNITS_CAP]);
/* "950", "32.2 M", "397 G": three digits, powers of 1000. */
void units_count(uint64_t n, char text[UNITS_CAP]);

#endif
