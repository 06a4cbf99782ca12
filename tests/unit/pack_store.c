/* Packing: the layout, what is kept when it goes on, what is refused, and damage when reading. */
#include <fcntl.h>
#include <sys/file.h>
#include <utime.h>

#include "engine_run.h"
#include "model/model.h"
#include "pack/pack_plan.h"
#include "store/expert_store.h"
#include "store/pack_check.h"
#include "tempdir.h"

static struct sluice_error err;

static const char separate_model[] = "tests/reference/tied";
static const char fused_model[] = "tests/reference/qwen3_5_moe-multimodal";
static const char mixed_model[] = "tests/reference/mlx-mixed";

/* A call of sluice_pack, what it said and what it told. */
struct run {
    struct sluice_pack_options options;
    enum sluice_status status;
    uint64_t told, done, total; /* calls of progress; the last one's numbers */
    uint64_t checked, packed;   /* bytes by phase */
    uint64_t cancel_at;         /* packed bytes after which to stop; 0: never */
    char log[512];              /* the last message */
};

static void progress(void *user, const char *doing, uint64_t done, uint64_t total)
{
    struct run *r = user;
    r->told++;
    r->done = done;
    r->total = total;
    if (strcmp(doing, "checking") == 0) r->checked = done;
    if (strcmp(doing, "packing") == 0) r->packed = done;
    CHECK(done <= total, "%s %" PRIu64 " of %" PRIu64, doing, done, total);
}

static bool cancelled(void *user)
{
    const struct run *r = user;
    return r->cancel_at && r->packed >= r->cancel_at;
}

static void note(void *user, enum sluice_log_level level, const char *message)
{
    struct run *r = user;
    if (level == SLUICE_LOG_WARNING) snprintf(r->log, sizeof r->log, "%s", message);
}

static struct run run_options_of(uint64_t shard_bytes, bool verify)
{
    struct run r = {0};
    sluice_pack_options_default(&r.options);
    r.options.shard_bytes = shard_bytes;
    r.options.verify = verify;
    return r;
}

static void run_pack(struct run *r, const char *model, const char *folder)
{
    r->options.progress = progress;
    r->options.cancelled = cancelled;
    r->options.log = note;
    r->options.user = r->options.log_user = r;
    err.message[0] = '\0';
    r->status = sluice_pack(model, folder, &r->options, &err);
}

/* A pack that must succeed. */
static void pack(const char *model, const char *folder, uint64_t shard_bytes)
{
    struct run r = run_options_of(shard_bytes, true);
    run_pack(&r, model, folder);
    CHECK(r.status == SLUICE_OK, "%s", err.message);
    CHECK(r.told && r.done == r.total);
}

static void expect_refused(const char *model, const char *folder, enum sluice_status status,
                           const char *says)
{
    struct run r = run_options_of(0, false);
    run_pack(&r, model, folder);
    CHECK(r.status == status && err.code == status, "%d: %s", r.status, err.message);
    CHECK(strstr(err.message, says), "'%s' should say '%s'", err.message, says);
}

/* Layout */

static void check_expert(const struct pack_check *check, const struct expert_bank *bank, uint32_t e)
{
    struct expert_extents extents;
    struct expert_windows windows;
    const struct checkpoint *cp = check->cp;
    REQUIRE(extents_find(&bank->experts[e], cp->files, (uint32_t)cp->n_files, &extents));
    extents_windows(&extents, PACK_ALIGN, &windows);
    CHECK(windows.n == 1, "layer %u, expert %u: %u reads", bank->layer, e, windows.n);
    CHECK(extents.part[0].offset % PACK_ALIGN == 0);
    CHECK(windows.window[0].offset == extents.part[0].offset);
    for (uint32_t p = 1; p < EXPERT_PARTS; p++)
        CHECK(extents.part[p].bytes == 0 || extents.part[p].offset > extents.part[p - 1].offset);
    CHECK(windows.window[0].offset + windows.window[0].bytes <=
              cp->files[extents.part[0].file].bytes,
          "a window reaches past the end");
    CHECK_OK(pack_check_expert(check, bank, e, &bank->experts[e], &err));
}

static void check_layout(const char *folder)
{
    struct checkpoint cp;
    struct model model;
    struct model_options options = {0};
    struct pack_check check;
    bool present;
    REQUIRE(checkpoint_open(&cp, folder, &err) == SLUICE_OK, "%s", err.message);
    REQUIRE(model_init(&model, &cp, &options, &err) == SLUICE_OK, "%s", err.message);
    REQUIRE(pack_check_open(&check, &cp, &present, &err) == SLUICE_OK, "%s", err.message);
    CHECK(present && model.n_banks > 0);
    for (uint32_t b = 0; b < model.n_banks; b++)
        for (uint32_t e = 0; e < model.banks[b]->n_experts; e++)
            check_expert(&check, model.banks[b], e);
    for (size_t t = 0; t < cp.n_tensors; t++) {
        bool padding = model.tensor_kind[t] == TENSOR_PADDING;
        CHECK(padding == (strncmp(cp.tensors[t].name, "__pad__.", 8) == 0));
        if (model.tensor_kind[t] == TENSOR_DENSE || model.tensor_kind[t] == TENSOR_SKIPPED)
            CHECK_OK(pack_check_tensor(&check, &cp.tensors[t], cp.tensors[t].data, &err));
    }
    pack_check_release(&check);
    model_release(&model);
    checkpoint_release(&cp);
}

static void test_an_expert_is_one_read(void)
{
    const char *const models[] = {"models/storyteller", separate_model,
                                  fused_model,          mixed_model,
                                  packed_model,         "tests/reference/untied-f16"};
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        for (uint64_t cut = 0; cut < 2; cut++) {
            char name[32];
            snprintf(name, sizeof name, "%zu-%d", i, (int)cut);
            /* About ten files of each. */
            pack(models[i], tempdir_path(&dir, name), cut * (i ? 100000 : 2000000));
            check_layout(tempdir_path(&dir, name));
        }
    tempdir_remove(&dir);
}

/* Logits of a few ids; NULL when the evaluation fails with err set. */
static float *logits_of(const char *folder, const struct sluice_engine_options *o)
{
    sluice_engine *engine = run_engine(folder, o);
    sluice_session *session = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), 20, 5);
    float *logits = p.logits;
    if (prompt_eval(&p, engine, session, 0, p.n, logits, &err) != SLUICE_OK) {
        free(logits);
        logits = NULL;
    }
    p.logits = NULL;
    prompt_release(&p);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return logits;
}

static void compare_logits(const char *model, const char *folder,
                           const struct sluice_engine_options *o)
{
    struct sluice_engine_options mapped = *o;
    mapped.io = SLUICE_IO_MMAP;
    mapped.n_slots = 0;
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine *engine = run_engine(folder, &mapped);
    sluice_engine_get_info(engine, &info);
    float *wanted = logits_of(model, &mapped), *from_map = logits_of(folder, &mapped);
    float *streamed = logits_of(folder, o);
    size_t bytes = 20 * sizeof *wanted * info.vocab_size;
    CHECK(from_map && memcmp(from_map, wanted, bytes) == 0, "%s", folder);
    CHECK(streamed && memcmp(streamed, wanted, bytes) == 0, "%s", folder);
    free(wanted);
    free(from_map);
    free(streamed);
    sluice_engine_close(&engine);
}

static void test_same_bits(void)
{
    const char *const models[] = {"models/storyteller", separate_model, fused_model, mixed_model};
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char name[8];
        snprintf(name, sizeof name, "%zu", i);
        pack(models[i], tempdir_path(&dir, name), 0);
        struct sluice_engine_options o = run_options(i % 2 ? SLUICE_EXACT : SLUICE_FAST, 1);
        o.n_slots = 4;
        compare_logits(models[i], tempdir_path(&dir, name), &o);
    }
    tempdir_remove(&dir);
}

/* Packing a pack gives the same shards again. */
static void test_a_pack_of_a_pack(void)
{
    struct tempdir dir;
    char *one, *two;
    size_t n_one, n_two;
    REQUIRE(tempdir_make(&dir));
    pack(separate_model, tempdir_path(&dir, "a"), 0);
    pack(tempdir_path(&dir, "a"), tempdir_path(&dir, "b"), 0);
    const char shard[] = "model-00002-of-00002.safetensors";
    char path[64];
    snprintf(path, sizeof path, "a/%s", shard);
    CHECK_OK(file_read(tempdir_path(&dir, path), 1u << 30, &one, &n_one, &err));
    path[0] = 'b';
    CHECK_OK(file_read(tempdir_path(&dir, path), 1u << 30, &two, &n_two, &err));
    CHECK(n_one == n_two && memcmp(one, two, n_one) == 0);
    free(one);
    free(two);
    tempdir_remove(&dir);
}

/* Going on */

static ino_t inode(const struct tempdir *dir, const char *name)
{
    struct stat st;
    return stat(tempdir_path(dir, name), &st) == 0 ? st.st_ino : 0;
}

static void flip(const char *path, uint64_t offset)
{
    unsigned char byte;
    int fd = open(path, O_RDWR);
    CHECK(pread(fd, &byte, 1, (off_t)offset) == 1);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, (off_t)offset) == 1);
    close(fd);
}

static const char first_shard[] = "p/model-00001-of-00005.safetensors";
static const char second_shard[] = "p/model-00002-of-00005.safetensors";

/* Packs packed_model into dir/p and stops after the second of five shards. */
static void pack_partly(const struct tempdir *dir)
{
    struct run r = run_options_of(200000, false);
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    sluice_engine *engine;
    r.cancel_at = 400000;
    run_pack(&r, packed_model, tempdir_path(dir, "p"));
    CHECK(r.status == SLUICE_E_CANCELLED, "%d: %s", r.status, err.message);
    CHECK(strstr(err.message, "2 of 5 shards") && strstr(err.message, "goes on"), "%s",
          err.message);
    CHECK(inode(dir, second_shard) && !inode(dir, "p/model-00003-of-00005.safetensors"));
    CHECK(!inode(dir, "p/.model-00003-of-00005.safetensors.part"));
    CHECK(sluice_engine_open(&engine, tempdir_path(dir, "p"), &o, &err) == SLUICE_E_NOT_FOUND);
    CHECK(strstr(err.message, "a pack that is not complete"), "%s", err.message);
}

static void test_complete_shards_are_kept(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    pack_partly(&dir);
    ino_t first = inode(&dir, first_shard), second = inode(&dir, second_shard);
    CHECK(tempdir_write_text(&dir, "p/.model-00003-of-00005.safetensors.part", "rest"));
    struct run r = run_options_of(0, true);
    run_pack(&r, packed_model, tempdir_path(&dir, "p"));
    CHECK(r.status == SLUICE_OK, "%s", err.message);
    CHECK(r.checked > 280000 && r.packed > 300000 && r.log[0] == '\0', "%s", r.log);
    CHECK(inode(&dir, first_shard) == first && inode(&dir, second_shard) == second);
    CHECK(!inode(&dir, "p/.model-00003-of-00005.safetensors.part"));
    check_layout(tempdir_path(&dir, "p"));
    r = run_options_of(0, false);
    run_pack(&r, packed_model, tempdir_path(&dir, "p"));
    CHECK(r.status == SLUICE_OK && r.told == 0, "a complete pack is left alone");
    tempdir_remove(&dir);
}

static void test_damaged_shards_are_written_again(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    pack_partly(&dir);
    ino_t first = inode(&dir, first_shard);
    flip(tempdir_path(&dir, second_shard), 50000);
    struct run r = run_options_of(0, true);
    run_pack(&r, packed_model, tempdir_path(&dir, "p"));
    CHECK(r.status == SLUICE_OK, "%s", err.message);
    CHECK(strstr(r.log, "00002-of-00005") && strstr(r.log, "written again"), "%s", r.log);
    CHECK(inode(&dir, first_shard) == first);
    /* A shard that is gone or cut. */
    CHECK(unlink(tempdir_path(&dir, second_shard)) == 0);
    CHECK(truncate(tempdir_path(&dir, "p/model-00004-of-00005.safetensors"), 5000) == 0);
    r = run_options_of(0, true);
    run_pack(&r, packed_model, tempdir_path(&dir, "p"));
    CHECK(r.status == SLUICE_OK, "%s", err.message);
    check_layout(tempdir_path(&dir, "p"));
    tempdir_remove(&dir);
}

static void test_another_shard_size(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    pack(separate_model, tempdir_path(&dir, "p"), 100000);
    CHECK(inode(&dir, "p/model-00010-of-00010.safetensors"));
    pack(separate_model, tempdir_path(&dir, "p"), 1u << 30);
    CHECK(inode(&dir, "p/model-00002-of-00002.safetensors"));
    CHECK(!inode(&dir, "p/model-00010-of-00010.safetensors"));
    check_layout(tempdir_path(&dir, "p"));
    /* While it is made anew it is no model. */
    struct run r = run_options_of(100000, false);
    r.cancel_at = 1;
    run_pack(&r, separate_model, tempdir_path(&dir, "p"));
    CHECK(r.status == SLUICE_E_CANCELLED, "%s", err.message);
    CHECK(!inode(&dir, "p/config.json") && inode(&dir, "p/" PACK_MANIFEST_NAME));
    pack(separate_model, tempdir_path(&dir, "p"), 0);
    CHECK(inode(&dir, "p/model-00010-of-00010.safetensors"), "the size it was begun with");
    tempdir_remove(&dir);
}

/* Refusals */

static void test_folders_that_are_refused(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_mkdir(&dir, "full") && tempdir_write_text(&dir, "full/letter", "x"));
    CHECK(tempdir_write_text(&dir, "file", "x"));
    expect_refused(separate_model, tempdir_path(&dir, "full"), SLUICE_E_ARGUMENT,
                   "holds 'letter' and no pack");
    expect_refused(separate_model, tempdir_path(&dir, "file"), SLUICE_E_IO, "/file'");
    expect_refused(separate_model, tempdir_path(&dir, "no/such"), SLUICE_E_IO, "no/such");
    expect_refused(separate_model, separate_model, SLUICE_E_ARGUMENT, "is the model itself");
    expect_refused(tempdir_path(&dir, "none"), tempdir_path(&dir, "p"), SLUICE_E_NOT_FOUND, "none");
    CHECK(tempdir_mkdir(&dir, "odd") && tempdir_write_text(&dir, "odd/sluice.pack.json", "{}"));
    expect_refused(separate_model, tempdir_path(&dir, "odd"), SLUICE_E_FORMAT, "/odd'");
    CHECK(tempdir_mkdir(&dir, "begun") &&
          tempdir_write_text(&dir, "begun/.sluice.pack.json.part", "{"));
    pack(separate_model, tempdir_path(&dir, "begun"), 0);
    tempdir_remove(&dir);
}

static void test_one_process_at_a_time(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir) && tempdir_mkdir(&dir, "p"));
    int fd = open(tempdir_path(&dir, "p"), O_RDONLY | O_DIRECTORY);
    REQUIRE(fd >= 0 && flock(fd, LOCK_EX) == 0);
    expect_refused(separate_model, tempdir_path(&dir, "p"), SLUICE_E_STATE, "another process");
    close(fd);
    pack(separate_model, tempdir_path(&dir, "p"), 0);
    tempdir_remove(&dir);
}

static void copy(const struct tempdir *dir, const char *from, const char *name)
{
    char *data;
    size_t len;
    CHECK_OK(file_read(from, 1u << 30, &data, &len, &err));
    CHECK(data && tempdir_write(dir, name, data, len));
    free(data);
}

static void test_another_model_is_refused(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir) && tempdir_mkdir(&dir, "m"));
    copy(&dir, "tests/reference/tied/config.json", "m/config.json");
    copy(&dir, "tests/reference/tied/model.safetensors", "m/model.safetensors");
    pack(tempdir_path(&dir, "m"), tempdir_path(&dir, "p"), 0);
    expect_refused(packed_model, tempdir_path(&dir, "p"), SLUICE_E_MISMATCH, "another model");
    struct utimbuf then = {1000000000, 1000000000};
    CHECK(utime(tempdir_path(&dir, "m/model.safetensors"), &then) == 0);
    expect_refused(tempdir_path(&dir, "m"), tempdir_path(&dir, "p"), SLUICE_E_MISMATCH,
                   "m/model.safetensors' has changed");
    FILE *config = fopen(tempdir_path(&dir, "m/config.json"), "a");
    REQUIRE(config != NULL);
    fputs("\n", config);
    fclose(config);
    expect_refused(tempdir_path(&dir, "m"), tempdir_path(&dir, "p"), SLUICE_E_MISMATCH, "or '");
    tempdir_remove(&dir);
}

/* Damage */

/* A packed model whose tensor called name has one bit flipped. */
static void damage(const struct tempdir *dir, const char *name)
{
    struct checkpoint cp;
    pack(packed_model, tempdir_path(dir, "p"), 0);
    CHECK_OK(checkpoint_open(&cp, tempdir_path(dir, "p"), &err));
    const struct tensor *t = checkpoint_find(&cp, name);
    REQUIRE(t != NULL, "%s", name);
    uint64_t offset = t->offset + t->bytes / 3;
    char path[1024];
    snprintf(path, sizeof path, "%s", cp.files[t->file].path);
    checkpoint_release(&cp);
    flip(path, offset);
}

static void expect_verify_finds(const struct tempdir *dir, const char *says)
{
    struct run r = run_options_of(0, true);
    run_pack(&r, packed_model, tempdir_path(dir, "p"));
    CHECK(r.status == SLUICE_E_FORMAT, "%d: %s", r.status, err.message);
    CHECK(strstr(err.message, says) && strstr(err.message, "pack again"), "%s", err.message);
}

static void test_flipped_bit_in_an_expert(void)
{
    static const char name[] = "language_model.model.layers.2.mlp.experts.3.up_proj.scales";
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    damage(&dir, name);
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    o.n_slots = 8;
    float *logits = logits_of(tempdir_path(&dir, "p"), &o);
    CHECK(!logits && err.code == SLUICE_E_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "layer 2, expert 3: ") && strstr(err.message, name) &&
              strstr(err.message, "-of-00002.safetensors") && strstr(err.message, "damaged"),
          "%s", err.message);
    free(logits);
    o.verify = false;
    logits = logits_of(tempdir_path(&dir, "p"), &o);
    CHECK(logits != NULL, "%s", err.message);
    free(logits);
    o.verify = o.preload = true;
    o.n_slots = 1000;
    sluice_engine *engine;
    CHECK(sluice_engine_open(&engine, tempdir_path(&dir, "p"), &o, &err) == SLUICE_E_FORMAT);
    CHECK(strstr(err.message, name), "%s", err.message);
    expect_verify_finds(&dir, name);
    tempdir_remove(&dir);
}

/* The session is where it was, and what needs no damaged expert is still computed. */
static void test_session_outlives_damage(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    damage(&dir, "language_model.model.layers.0.mlp.experts.1.gate_proj.weight");
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    o.n_slots = 8;
    sluice_engine *engine = run_engine(tempdir_path(&dir, "p"), &o);
    sluice_session *session = run_session(engine);
    struct prompt p = prompt_make(run_vocab(engine), 30, 5);
    uint32_t n_failed = 0, n_good = 0;
    for (size_t i = 0; i < p.n; i++) {
        uint32_t before = sluice_session_position(session);
        enum sluice_status status = prompt_eval(&p, engine, session, i, 1, p.logits, &err);
        CHECK(status == SLUICE_OK || status == SLUICE_E_FORMAT, "%d: %s", status, err.message);
        CHECK(sluice_session_position(session) == before + (status == SLUICE_OK));
        n_failed += status != SLUICE_OK;
        n_good += status == SLUICE_OK;
    }
    CHECK(n_failed > 0 && n_good > 0, "%u %u", n_failed, n_good);
    prompt_release(&p);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    tempdir_remove(&dir);
}

static void test_flipped_bit_in_a_dense_tensor(void)
{
    const char *const names[] = {"language_model.model.embed_tokens.weight",
                                 "language_model.model.layers.1.mlp.gate.scales",
                                 "language_model.model.layers.0.input_layernorm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct tempdir dir;
        REQUIRE(tempdir_make(&dir));
        damage(&dir, names[i]);
        for (int mapped = 0; mapped < 2; mapped++) {
            struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
            sluice_engine *engine;
            o.io = mapped ? SLUICE_IO_MMAP : SLUICE_IO_AUTO;
            CHECK(sluice_engine_open(&engine, tempdir_path(&dir, "p"), &o, &err) ==
                  SLUICE_E_FORMAT);
            CHECK(!engine && strstr(err.message, names[i]) && strstr(err.message, "damaged"), "%s",
                  err.message);
            o.verify = false;
            CHECK_OK(sluice_engine_open(&engine, tempdir_path(&dir, "p"), &o, &err));
            sluice_engine_close(&engine);
        }
        expect_verify_finds(&dir, names[i]);
        tempdir_remove(&dir);
    }
}

static void test_flipped_bits_elsewhere(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    pack(separate_model, tempdir_path(&dir, "p"), 0);
    const char *shard = tempdir_path(&dir, "p/model-00002-of-00002.safetensors");
    struct stat st;
    CHECK(stat(shard, &st) == 0);
    flip(shard, (uint64_t)st.st_size - 1); /* what fills the last page */
    struct run r = run_options_of(0, true);
    run_pack(&r, separate_model, tempdir_path(&dir, "p"));
    CHECK(r.status == SLUICE_E_FORMAT && strstr(err.message, "__pad__."), "%s", err.message);
    flip(shard, (uint64_t)st.st_size - 1);
    flip(shard, 20);
    run_pack(&r, separate_model, tempdir_path(&dir, "p"));
    CHECK(r.status == SLUICE_E_FORMAT && strstr(err.message, "header"), "%s", err.message);
    tempdir_remove(&dir);
}

static void test_manifest_and_files_disagree(void)
{
    struct tempdir dir;
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    sluice_engine *engine;
    REQUIRE(tempdir_make(&dir));
    pack(packed_model, tempdir_path(&dir, "p"), 0);
    pack(packed_model, tempdir_path(&dir, "q"), 200000);
    copy(&dir, tempdir_path(&dir, "q/sluice.pack.json"), "p/sluice.pack.json");
    CHECK(sluice_engine_open(&engine, tempdir_path(&dir, "p"), &o, &err) == SLUICE_E_MISMATCH);
    CHECK(strstr(err.message, "is not in sluice.pack.json"), "%s", err.message);
    tempdir_remove(&dir);
    REQUIRE(tempdir_make(&dir));
    pack(packed_model, tempdir_path(&dir, "p"), 0);
    pack(mixed_model, tempdir_path(&dir, "q"), 0);
    copy(&dir, tempdir_path(&dir, "q/sluice.pack.json"), "p/sluice.pack.json");
    CHECK(sluice_engine_open(&engine, tempdir_path(&dir, "p"), &o, &err) == SLUICE_E_MISMATCH);
    CHECK(strstr(err.message, "bytes, but sluice.pack.json says"), "%s", err.message);
    o.verify = false;
    CHECK_OK(sluice_engine_open(&engine, tempdir_path(&dir, "p"), &o, &err));
    sluice_engine_close(&engine);
    tempdir_remove(&dir);
}

/* Counts what a store asks for, and refuses expert 1 the first two times. */
struct asked {
    uint32_t n[64], n_refused;
};

static enum sluice_status ask(const void *user, const struct expert_bank *bank, uint32_t expert,
                              const struct expert_view *view, struct sluice_error *e)
{
    struct asked *asked = (struct asked *)(uintptr_t)user;
    CHECK(view->gate.data && view->gate.data != bank->experts[expert].gate.data);
    asked->n[expert]++;
    if (expert != 1 || asked->n[1] > 2) return SLUICE_OK;
    asked->n_refused++;
    return err_set(e, SLUICE_E_FORMAT, "expert %u is refused", expert);
}

/* A step that uses one expert and gives it back. */
static enum sluice_status use(struct expert_store *store, const struct expert_bank *bank,
                              uint32_t expert)
{
    uint32_t ready, n;
    TRY(store_begin(store, bank, &expert, 1, USE_DECODE, &err));
    TRY(store_next(store, &ready, 1, true, &n, &err));
    CHECK(n == 1 && ready == expert);
    store_done(store, expert);
    return SLUICE_OK;
}

static void test_experts_are_checked_once(void)
{
    struct checkpoint cp;
    struct model model;
    struct model_options options = {0};
    struct asked asked = {0};
    struct expert_store *store;
    struct store_options o = {.n_slots = 1, .check = ask, .check_user = &asked};
    CHECK_OK(checkpoint_open(&cp, separate_model, &err));
    CHECK_OK(model_init(&model, &cp, &options, &err));
    CHECK_OK(store_open(&store, cp.files, (uint32_t)cp.n_files, model.banks, 1, &o, &err));
    for (uint32_t i = 0; i < 12; i++) CHECK_OK(use(store, model.banks[0], i % 2 ? 2 : 3));
    CHECK(asked.n[2] == 1 && asked.n[3] == 1, "%u %u", asked.n[2], asked.n[3]);
    CHECK(use(store, model.banks[0], 1) == SLUICE_E_FORMAT);
    CHECK(strcmp(err.message, "expert 1 is refused") == 0, "%s", err.message);
    CHECK_OK(use(store, model.banks[0], 1));
    CHECK(asked.n[1] == 3 && asked.n_refused == 2);
    CHECK_OK(use(store, model.banks[0], 2));
    CHECK(asked.n[2] == 1);
    store_close(&store);
    model_release(&model);
    checkpoint_release(&cp);
}

/* What a manifest does not list is no reason to trust it. */
static void test_missing_checksums(void)
{
    struct pack_manifest m = {0};
    struct expert_view view = {0};
    struct expert_bank bank = {.layer = 4, .n_experts = 1, .experts = &view};
    struct tensor tensor = {.name = "some.weight"};
    struct pack_check check = {.manifest = m};
    CHECK(pack_check_expert(&check, &bank, 0, &view, &err) == SLUICE_E_MISMATCH);
    CHECK(strstr(err.message, "layer 4, expert 0"), "%s", err.message);
    CHECK(pack_check_tensor(&check, &tensor, NULL, &err) == SLUICE_E_MISMATCH);
    CHECK(strstr(err.message, "some.weight"), "%s", err.message);
}

static void test_truncated_shard(void)
{
    struct tempdir dir;
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    sluice_engine *engine;
    REQUIRE(tempdir_make(&dir));
    pack(packed_model, tempdir_path(&dir, "p"), 0);
    CHECK(truncate(tempdir_path(&dir, "p/model-00002-of-00002.safetensors"), 300000) == 0);
    CHECK(sluice_engine_open(&engine, tempdir_path(&dir, "p"), &o, &err) == SLUICE_E_FORMAT);
    CHECK(strstr(err.message, "model-00002") && strstr(err.message, "missing"), "%s", err.message);
    pack(packed_model, tempdir_path(&dir, "p"), 0);
    check_layout(tempdir_path(&dir, "p"));
    tempdir_remove(&dir);
}

#define CASES(C)                                                                                   \
    C(an_expert_is_one_read)                                                                       \
    C(same_bits)                                                                                   \
    C(a_pack_of_a_pack)                                                                            \
    C(complete_shards_are_kept)                                                                    \
    C(damaged_shards_are_written_again)                                                            \
    C(another_shard_size)                                                                          \
    C(folders_that_are_refused)                                                                    \
    C(one_process_at_a_time)                                                                       \
    C(another_model_is_refused)                                                                    \
    C(flipped_bit_in_an_expert)                                                                    \
    C(session_outlives_damage)                                                                     \
    C(flipped_bit_in_a_dense_tensor)                                                               \
    C(flipped_bits_elsewhere)                                                                      \
    C(manifest_and_files_disagree)                                                                 \
    C(experts_are_checked_once)                                                                    \
    C(missing_checksums)                                                                           \
    C(truncated_shard)
CHECK_MAIN(CASES)
