/* GGUF models: one file, parts, folders; and every way in which one is not whole. */
#include <stdlib.h>

#include "check.h"
#include "gguf_bytes.h"
#include "store/checkpoint.h"
#include "tempdir.h"

static struct sluice_error err;

/* What a part says of itself; n_parts 0: nothing. */
struct part {
    const char *tensor;
    uint32_t no, n_parts, n_tensors;
};

/* A file with one tensor of two f32; tensor NULL: none. */
static bool write_part(const struct tempdir *dir, const char *name, const struct part *p)
{
    struct gguf_bytes f = gguf_begin(3);
    gguf_key_string(&f, "general.architecture", "x");
    if (p->n_parts) {
        gguf_key(&f, "split.no", 2);
        gguf_put_int(&f, p->no, 2);
        gguf_key(&f, "split.count", 2);
        gguf_put_int(&f, p->n_parts, 2);
        gguf_key(&f, "split.tensors.count", 5);
        gguf_put_int(&f, p->n_tensors, 4);
    }
    if (p->tensor) gguf_tensor(&f, p->tensor, GGUF_DIMS(2, 1), 0, 0);
    gguf_end(&f, 32, p->tensor ? 8 : 0);
    bool ok = tempdir_write(dir, name, f.data, f.len);
    free(f.data);
    return ok;
}

static bool write_one(const struct tempdir *dir, const char *name, const char *tensor)
{
    return write_part(dir, name, &(struct part){.tensor = tensor});
}

static void expect_refused(const char *path, enum sluice_status status, const char *says,
                           const char *also)
{
    struct checkpoint cp;
    err.message[0] = '\0';
    enum sluice_status got = checkpoint_open(&cp, path, &err);
    CHECK(got == status && err.code == status, "status %d: %s", got, err.message);
    CHECK(strstr(err.message, says), "'%s' should say '%s'", err.message, says);
    CHECK(strstr(err.message, also), "'%s' should say '%s'", err.message, also);
    CHECK(cp.n_files == 0 && cp.tensors == NULL && cp.path == NULL && cp.gguf == NULL);
    if (got == SLUICE_OK) checkpoint_release(&cp);
}

static void expect_opens(const char *path, size_t n_files, const char *tensor, const char *file)
{
    struct checkpoint cp;
    enum sluice_status got = checkpoint_open(&cp, path, &err);
    REQUIRE(got == SLUICE_OK, "%s: %s", path, err.message);
    CHECK(cp.n_files == n_files && cp.n_tensors == n_files && cp.config == NULL);
    CHECK(cp.gguf && gguf_find(&cp.gguf[0], "general.architecture"));
    const struct tensor *t = checkpoint_find(&cp, tensor);
    REQUIRE(t != NULL, "%s", tensor);
    CHECK(strcmp(checkpoint_file_name(&cp, t), file) == 0, "%s", checkpoint_file_name(&cp, t));
    CHECK(t->data == cp.files[t->file].data + t->offset && memcmp(t->data, "\0\1\2\3", 4) == 0);
    CHECK(t->rank == 2 && t->shape[0] == 1 && t->shape[1] == 2 && t->bytes == 8);
    CHECK(checkpoint_tensor_at(&cp, t->data + 7) == t && !checkpoint_tensor_at(&cp, t->data + 8));
    checkpoint_release(&cp);
    checkpoint_release(&cp);
}

static void test_one_file(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(write_one(&dir, "m.gguf", "a") && tempdir_write_text(&dir, "README.md", "x"));
    expect_opens(tempdir_path(&dir, "m.gguf"), 1, "a", "m.gguf");
    expect_opens(dir.path, 1, "a", "m.gguf");
    CHECK(write_one(&dir, "mmproj-m.gguf", "v") && write_one(&dir, ".hidden.gguf", "v"));
    expect_opens(dir.path, 1, "a", "m.gguf");
    CHECK(tempdir_write_text(&dir, "config.json", "{}"));
    expect_opens(dir.path, 1, "a", "m.gguf");
    CHECK(write_one(&dir, "without-extension", "b"));
    expect_opens(tempdir_path(&dir, "without-extension"), 1, "b", "without-extension");
    CHECK(symlink("m.gguf", tempdir_path(&dir, "link.gguf")) == 0);
    expect_opens(tempdir_path(&dir, "link.gguf"), 1, "a", "link.gguf");
    tempdir_remove(&dir);
}

static bool write_parts(const struct tempdir *dir, uint32_t n_tensors)
{
    return write_part(dir, "m-00001-of-00003.gguf", &(struct part){"a", 0, 3, n_tensors}) &&
           write_part(dir, "m-00002-of-00003.gguf", &(struct part){"b", 1, 3, n_tensors}) &&
           write_part(dir, "m-00003-of-00003.gguf", &(struct part){"c", 2, 3, n_tensors});
}

static void test_parts(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir) && write_parts(&dir, 3));
    expect_opens(tempdir_path(&dir, "m-00001-of-00003.gguf"), 3, "c", "m-00003-of-00003.gguf");
    expect_opens(tempdir_path(&dir, "m-00003-of-00003.gguf"), 3, "a", "m-00001-of-00003.gguf");
    expect_opens(dir.path, 3, "b", "m-00002-of-00003.gguf");
    CHECK(unlink(tempdir_path(&dir, "m-00002-of-00003.gguf")) == 0);
    expect_refused(dir.path, SLUICE_E_NOT_FOUND, "m-00002-of-00003.gguf' does not exist",
                   "incomplete download?");
    expect_refused(tempdir_path(&dir, "m-00003-of-00003.gguf"), SLUICE_E_NOT_FOUND,
                   "m-00002-of-00003.gguf' does not exist", "'m-00003-of-00003.gguf' does");
    CHECK(write_part(&dir, "m-00002-of-00003.gguf", &(struct part){"b", 2, 3, 3}));
    expect_refused(dir.path, SLUICE_E_MISMATCH,
                   "m-00002-of-00003.gguf: key 'split.no' is 2 where 1", "are named");
    CHECK(write_part(&dir, "m-00002-of-00003.gguf", &(struct part){"b", 1, 2, 3}));
    expect_refused(dir.path, SLUICE_E_MISMATCH, "key 'split.count' is 2 where 3 is needed", "");
    CHECK(write_part(&dir, "m-00002-of-00003.gguf", &(struct part){"a", 1, 3, 3}));
    expect_refused(dir.path, SLUICE_E_MISMATCH, "tensor 'a' is in both", "m-00002-of-00003.gguf");
    CHECK(write_parts(&dir, 4));
    expect_refused(dir.path, SLUICE_E_MISMATCH, "key 'split.tensors.count' is 4 where 3", "");
    CHECK(rename(tempdir_path(&dir, "m-00001-of-00003.gguf"), tempdir_path(&dir, "n.gguf")) == 0);
    expect_refused(tempdir_path(&dir, "n.gguf"), SLUICE_E_MISMATCH,
                   "n.gguf: key 'split.count' is 3 where 1 is needed", "NAME-00001-of-00003.gguf");
    tempdir_remove(&dir);
}

static void test_several_models(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(write_one(&dir, "a.gguf", "a") && write_one(&dir, "b.gguf", "a"));
    expect_refused(dir.path, SLUICE_E_MISMATCH, "holds several models, 'a.gguf' and 'b.gguf'",
                   "give the path of one");
    expect_opens(tempdir_path(&dir, "b.gguf"), 1, "a", "b.gguf");
    tempdir_remove(&dir);
}

static void test_no_model(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    expect_refused(tempdir_path(&dir, "m.gguf"), SLUICE_E_NOT_FOUND, "m.gguf'", "");
    CHECK(tempdir_write_text(&dir, "m.gguf", "GG"));
    expect_refused(dir.path, SLUICE_E_FORMAT, "m.gguf: does not begin with 'GGUF'", "");
    CHECK(write_one(&dir, "m.gguf", NULL));
    expect_refused(dir.path, SLUICE_E_NOT_FOUND, dir.path, "holds no tensors");
    CHECK(tempdir_mkdir(&dir, "only") && write_one(&dir, "only/mmproj-x.gguf", "v"));
    expect_refused(tempdir_path(&dir, "only"), SLUICE_E_NOT_FOUND, "only' has no *.gguf file", "");
    tempdir_remove(&dir);
}

#define CASES(C)                                                                                   \
    C(one_file)                                                                                    \
    C(parts)                                                                                       \
    C(several_models)                                                                              \
    C(no_model)
CHECK_MAIN(CASES)
