#include "bench_limits.h"

#include "report.h"

bool limit_suspect(double part)
{
    return part > 1.03;
}

enum sluice_status limit_settle(double reached, double *limit, limit_probe_fn *probe, void *user,
                                struct sluice_error *err)
{
    for (int i = 0; i < LIMIT_PROBES && limit_suspect(reached / *limit); i++) {
        double again;
        TRY(probe(user, &again, err));
        if (again > *limit) *limit = again;
    }
    return SLUICE_OK;
}
