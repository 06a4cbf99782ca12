/* Classes of characters, as the tokenizers and their patterns mean them. */
#ifndef SLUICE_TOKEN_UNICODE_H
#define SLUICE_TOKEN_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

/* White_Space of Unicode. */
bool unicode_is_space(uint32_t cp);
/* \w of Rust's regex crate: Alphabetic, marks, decimal digits, connectors and joiners. */
bool unicode_is_word(uint32_t cp);

#endif
