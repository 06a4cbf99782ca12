/*
 * Experts that cannot be read in the middle of a step: the call fails, at any number of threads,
 * its sessions stay where they were, and once the file is whole again they go on with the right
 * bits.
 */
#include <unistd.h>

#include "engine_run.h"
#include "tempdir.h"

/* A copy of the packed model that can be cut and mended while an engine has it open. */
struct patient {
    struct tempdir dir;
    uint8_t *weights;
    size_t bytes;
    struct timespec written;
};

static uint8_t *read_file(const char *folder, const char *name, size_t *bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = must(fopen(path, "rb"));
    uint8_t *data = must(malloc(1 << 20));
    *bytes = fread(data, 1, 1 << 20, f);
    fclose(f);
    if (*bytes == 1 << 20) abort();
    return data;
}

static void patient_make(struct patient *p)
{
    size_t n;
    uint8_t *config = read_file(packed_model, "config.json", &n);
    p->weights = read_file(packed_model, "model.safetensors", &p->bytes);
    bool ok = tempdir_make(&p->dir) && tempdir_write(&p->dir, "config.json", config, n) &&
              tempdir_write(&p->dir, "model.safetensors", p->weights, p->bytes);
    free(config);
    if (!ok) abort();
    p->written = tempdir_time(tempdir_path(&p->dir, "model.safetensors"));
}

static void patient_release(struct patient *p)
{
    tempdir_remove(&p->dir);
    free(p->weights);
}

static void cut(const struct patient *p)
{
    CHECK(truncate(tempdir_path(&p->dir, "model.safetensors"), 4096) == 0);
}

/* The same file, not a new one of that name. */
static void mend(const struct patient *p)
{
    FILE *f = must(fopen(tempdir_path(&p->dir, "model.safetensors"), "r+b"));
    CHECK(fwrite(p->weights, 1, p->bytes, f) == p->bytes);
    CHECK(fclose(f) == 0);
    CHECK(tempdir_set_time(tempdir_path(&p->dir, "model.safetensors"), p->written));
}

/* Evaluates in calls of 5 ids; before every second one, a call fails over the cut file. */
static void stumble(const struct patient *patient, sluice_engine *engine, const struct prompt *p)
{
    struct sluice_error err = {0};
    sluice_session *session = run_session(engine);
    float *logits = must(calloc(p->n * p->vocab, sizeof *logits));
    uint32_t failed = 0;
    for (size_t t = 0; t < p->n; t += 5) {
        if (t % 2) {
            cut(patient);
            enum sluice_status status = prompt_eval(p, engine, session, t, 5, logits, &err);
            failed += status != SLUICE_OK;
            CHECK(status == SLUICE_E_IO, "%d", (int)status);
            CHECK(strstr(err.message, "model.safetensors' at offset ") &&
                      strstr(err.message, ": the file is shorter than when it was opened"),
                  "%s", err.message);
            CHECK(sluice_session_position(session) == t);
            mend(patient);
        }
        CHECK_OK(prompt_eval(p, engine, session, t, 5, logits + t * p->vocab, &err));
    }
    size_t row = first_difference(p, logits);
    CHECK(row == p->n && failed == p->n / 10, "differs from row %zu, %u failed", row, failed);
    free(logits);
    sluice_session_close(&session);
}

/* False: this system has no such way to read. */
static bool check_faults(enum sluice_io io, uint32_t threads)
{
    struct patient patient;
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, threads);
    sluice_engine *engine = run_engine(packed_model, &o);
    struct prompt p = prompt_make(run_vocab(engine), 100, 9);
    prompt_run(&p, engine);
    sluice_engine_close(&engine);
    patient_make(&patient);
    o.io = io;
    o.n_slots = 4; /* of 32 experts: every call has to read */
    enum sluice_status status = sluice_engine_open(&engine, patient.dir.path, &o, &err);
    if (status == SLUICE_OK) stumble(&patient, engine, &p);
    CHECK(status == SLUICE_OK || io == SLUICE_IO_URING, "%s", err.message);
    sluice_engine_close(&engine);
    patient_release(&patient);
    prompt_release(&p);
    return status == SLUICE_OK;
}

static void test_threads_read(void)
{
    check_faults(SLUICE_IO_PREAD, 1);
    check_faults(SLUICE_IO_PREAD, 2);
    check_faults(SLUICE_IO_PREAD, 5);
}

static void test_the_kernel_reads(void)
{
    if (!check_faults(SLUICE_IO_URING, 3)) SKIP("io_uring is not to be had here");
}

#define CASES(C) C(threads_read) C(the_kernel_reads)
CHECK_MAIN(CASES)
