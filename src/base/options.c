#include "base/options.h"

#include <string.h>

#include "base/bits.h"

enum sluice_status options_take(void *to, uint32_t to_bytes, const void *options, const char *name,
                                struct sluice_error *err)
{
    uint32_t size;
    if (!options) return SLUICE_OK;
    memcpy(&size, options, sizeof size);
    if (size < sizeof size)
        return err_set(err, SLUICE_E_ARGUMENT,
                       "%s options have size %u; sluice_%s_options_default() sets it", name, size,
                       name);
    memcpy(to, options, min_u32(size, to_bytes));
    memcpy(to, &to_bytes, sizeof to_bytes);
    return SLUICE_OK;
}
