/* Model folders: what opens (one file, shards, links), and every way in which one is not whole. */
#include <stdlib.h>

#include "check.h"
#include "safetensors_bytes.h"
#include "store/checkpoint.h"
#include "tempdir.h"

static struct sluice_error err;

#define INDEX "model.safetensors.index.json"

/* A folder with config.json. */
static bool model_make(struct tempdir *dir)
{
    return tempdir_make(dir) && tempdir_write_text(dir, "config.json", "{\"model_type\": \"x\"}");
}

static bool write_header(const struct tempdir *dir, const char *file, const char *header,
                         size_t n_data)
{
    struct file_bytes f = safetensors_bytes(header, n_data);
    bool ok = tempdir_write(dir, file, f.data, f.len);
    free(f.data);
    return ok;
}

/* A file with one tensor of 4 bytes. */
static bool write_one(const struct tempdir *dir, const char *file, const char *tensor)
{
    char header[300];
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", tensor);
    return write_header(dir, file, header, 4);
}

static void expect_path_refused(const char *path, enum sluice_status status, const char *says,
                                const char *also)
{
    struct checkpoint cp;
    err.message[0] = '\0';
    enum sluice_status got = checkpoint_open(&cp, path, &err);
    CHECK(got == status && err.code == status, "status %d: %s", got, err.message);
    CHECK(strstr(err.message, says), "'%s' should say '%s'", err.message, says);
    CHECK(strstr(err.message, also), "'%s' should say '%s'", err.message, also);
    CHECK(cp.n_files == 0 && cp.tensors == NULL && cp.path == NULL && cp.config == NULL);
    if (got == SLUICE_OK) checkpoint_release(&cp);
}

/* Opening dir must fail; it is removed. */
static void expect_refused(struct tempdir *dir, enum sluice_status status, const char *says,
                           const char *also)
{
    expect_path_refused(dir->path, status, says, also);
    tempdir_remove(dir);
}

static void expect_tensor(const struct checkpoint *cp, const char *name, const char *file)
{
    const struct tensor *t = checkpoint_find(cp, name);
    CHECK(t != NULL, "%s", name);
    if (!t) return;
    CHECK(strcmp(t->name, name) == 0);
    CHECK(strcmp(checkpoint_file_name(cp, t), file) == 0, "%s", checkpoint_file_name(cp, t));
    CHECK(t->data == cp->files[t->file].data + t->offset);
    CHECK(t->bytes == 4 && t->rank == 1 && t->shape[0] == 4 && t->dtype == DTYPE_U8);
    CHECK(memcmp(t->data, "\0\1\2\3", 4) == 0);
}

static void test_single_file(void)
{
    struct tempdir dir;
    struct checkpoint cp;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "model.safetensors", "a"));
    CHECK(write_one(&dir, "consolidated.safetensors", "a"));
    CHECK(write_one(&dir, "reference.safetensors", "r"));
    CHECK(tempdir_write_text(&dir, "generation_config.json", "{\"eos_token_id\": 3}"));
    CHECK_OK(checkpoint_open(&cp, dir.path, &err));
    CHECK(cp.n_files == 1 && cp.n_tensors == 1 && !cp.any_mlx);
    CHECK(json_integer_value(json_object_get(cp.generation_config, "eos_token_id")) == 3);
    CHECK(strcmp(json_string_value(json_object_get(cp.config, "model_type")), "x") == 0);
    expect_tensor(&cp, "a", "model.safetensors");
    CHECK(checkpoint_find(&cp, "r") == NULL && checkpoint_find(&cp, "") == NULL);
    checkpoint_release(&cp);
    CHECK(cp.n_files == 0);
    checkpoint_release(&cp);
    tempdir_remove(&dir);
}

static void test_trailing_slashes_and_link(void)
{
    struct tempdir dir;
    struct checkpoint cp;
    char path[400];
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_mkdir(&dir, "blobs") && tempdir_mkdir(&dir, "snapshots") &&
          tempdir_mkdir(&dir, "snapshots/0a1b"));
    CHECK(tempdir_write_text(&dir, "blobs/c0", "{}") && write_one(&dir, "blobs/w0", "a"));
    CHECK(symlink("../../blobs/c0", tempdir_path(&dir, "snapshots/0a1b/config.json")) == 0);
    CHECK(symlink("../../blobs/w0", tempdir_path(&dir, "snapshots/0a1b/model.safetensors")) == 0);
    CHECK(symlink("snapshots/0a1b", tempdir_path(&dir, "latest")) == 0);
    snprintf(path, sizeof path, "%s/latest///", dir.path);
    CHECK_OK(checkpoint_open(&cp, path, &err));
    expect_tensor(&cp, "a", "model.safetensors");
    path[strlen(path) - 3] = '\0';
    CHECK(cp.path && strcmp(cp.path, path) == 0, "%s", cp.path);
    CHECK(cp.generation_config == NULL);
    checkpoint_release(&cp);
    expect_path_refused(dir.path, SLUICE_E_NOT_FOUND, dir.path, "snapshots folder");
    CHECK(unlink(tempdir_path(&dir, "blobs/w0")) == 0);
    expect_path_refused(path, SLUICE_E_NOT_FOUND, "model.safetensors' is a symbolic link",
                        "incomplete download");
    tempdir_remove(&dir);
}

static void test_index(void)
{
    struct tempdir dir;
    struct checkpoint cp;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "model-00001-of-00002.safetensors", "b"));
    CHECK(write_header(&dir, "model-00002-of-00002.safetensors",
                       "{\"__metadata__\":{\"format\":\"mlx\"},"
                       "\"c\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]},"
                       "\"z\":{\"dtype\":\"BF16\",\"shape\":[2,0],\"data_offsets\":[8,8]},"
                       "\"d\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
                       8));
    CHECK(write_one(&dir, "model.safetensors", "not in the index"));
    CHECK(tempdir_write_text(&dir, INDEX,
                             "{\"metadata\": {\"total_size\": 12}, \"weight_map\": {"
                             "\"c\": \"model-00002-of-00002.safetensors\","
                             "\"b\": \"model-00001-of-00002.safetensors\","
                             "\"\\u007a\": \"model-00002-of-00002.safetensor\\u0073\","
                             "\"d\": \"model-00002-of-00002.safetensors\"}}"));
    CHECK_OK(checkpoint_open(&cp, dir.path, &err));
    REQUIRE(cp.n_files == 2 && cp.n_tensors == 4);
    CHECK(cp.any_mlx);
    static const char *const order[] = {"b", "d", "c", "z"};
    for (size_t i = 0; i < 4; i++) CHECK(strcmp(cp.tensors[i].name, order[i]) == 0);
    expect_tensor(&cp, "b", "model-00001-of-00002.safetensors");
    expect_tensor(&cp, "d", "model-00002-of-00002.safetensors");
    const struct tensor *c = checkpoint_find(&cp, "c"), *z = checkpoint_find(&cp, "z");
    CHECK(c && c->data[0] == 4 && c->file == 1);
    CHECK(z && z->bytes == 0 && z->rank == 2 && z->shape[0] == 2 && z->shape[1] == 0);
    checkpoint_release(&cp);
    tempdir_remove(&dir);
}

static void test_folder_without_index(void)
{
    struct tempdir dir;
    struct checkpoint cp;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "model-00002-of-00002.safetensors", "b"));
    CHECK(write_one(&dir, "model-00001-of-00002.safetensors", "a"));
    CHECK(write_one(&dir, "extra.safetensors", "e"));
    CHECK(write_one(&dir, "reference.safetensors", "a"));
    CHECK(write_one(&dir, ".hidden.safetensors", "a"));
    CHECK_OK(checkpoint_open(&cp, dir.path, &err));
    REQUIRE(cp.n_files == 3 && cp.n_tensors == 3);
    CHECK(strcmp(cp.tensors[0].name, "e") == 0 && strcmp(cp.tensors[2].name, "b") == 0);
    expect_tensor(&cp, "a", "model-00001-of-00002.safetensors");
    checkpoint_release(&cp);
    tempdir_remove(&dir);
}

static void test_reference_alone_counts(void)
{
    struct tempdir dir;
    struct checkpoint cp;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "reference.safetensors", "r"));
    CHECK_OK(checkpoint_open(&cp, dir.path, &err));
    expect_tensor(&cp, "r", "reference.safetensors");
    checkpoint_release(&cp);
    tempdir_remove(&dir);
}

static void test_path_is_no_folder(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "file", ""));
    expect_path_refused("", SLUICE_E_NOT_FOUND, "'' does not exist", "give the folder");
    expect_path_refused(tempdir_path(&dir, "absent"), SLUICE_E_NOT_FOUND, "absent' does not exist",
                        "give the folder");
    expect_path_refused(tempdir_path(&dir, "file"), SLUICE_E_UNSUPPORTED,
                        "file' is neither a folder nor a GGUF file", "give the folder");
    expect_path_refused(tempdir_path(&dir, "file/x"), SLUICE_E_NOT_FOUND, "file/x'",
                        "Not a directory");
    static char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    expect_path_refused(longest, SLUICE_E_IO, "'xxx", "xxx");
    expect_refused(&dir, SLUICE_E_NOT_FOUND, dir.path, "config.json' does not exist");
}

static void test_root_folder(void)
{
    expect_path_refused("/", SLUICE_E_NOT_FOUND, "'/' is not a model folder",
                        "'/config.json' does not exist");
    expect_path_refused("//", SLUICE_E_NOT_FOUND, "'/' is not a model folder",
                        "'/config.json' does not exist");
}

static void test_config_is_broken(void)
{
    struct tempdir dir;
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "config.json", "{\n\"rope_theta\": NaN}"));
    expect_refused(&dir, SLUICE_E_FORMAT, "config.json: line 2", "found NaN");
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_write_text(&dir, "config.json", "[]"));
    expect_refused(&dir, SLUICE_E_FORMAT, "config.json: is an array", "must be an object");
    REQUIRE(model_make(&dir));
    CHECK(tempdir_write_text(&dir, "generation_config.json", "{"));
    expect_refused(&dir, SLUICE_E_FORMAT, "generation_config.json: line 1", "expected");
    REQUIRE(model_make(&dir));
    CHECK(symlink("gone", tempdir_path(&dir, "generation_config.json")) == 0);
    expect_refused(&dir, SLUICE_E_NOT_FOUND, "generation_config.json' is a symbolic link",
                   "does not exist");
    REQUIRE(tempdir_make(&dir));
    CHECK(tempdir_mkdir(&dir, "config.json"));
    expect_refused(&dir, SLUICE_E_IO, "config.json' is a folder", "not a file");
}

static void test_no_weights(void)
{
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, ".hidden.safetensors", "a"));
    expect_refused(&dir, SLUICE_E_NOT_FOUND, dir.path, "no *.safetensors file");
    REQUIRE(model_make(&dir));
    CHECK(tempdir_write_text(&dir, "pytorch_model.bin", "x"));
    expect_refused(&dir, SLUICE_E_NOT_FOUND, "no *.safetensors file",
                   "'pytorch_model.bin' are not read");
    REQUIRE(model_make(&dir));
    CHECK(write_header(&dir, "model.safetensors", "{}", 0));
    expect_refused(&dir, SLUICE_E_NOT_FOUND, dir.path, "hold no tensors");
}

static void test_missing_part(void)
{
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "model-00001-of-00003.safetensors", "a"));
    CHECK(write_one(&dir, "model-00003-of-00003.safetensors", "c"));
    expect_refused(&dir, SLUICE_E_NOT_FOUND, "/model-00002-of-00003.safetensors' does not exist",
                   "model-00001-of-00003.safetensors");
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "m-2-of-2.safetensors", "b"));
    CHECK(write_one(&dir, "other.safetensors", "o"));
    expect_refused(&dir, SLUICE_E_NOT_FOUND, "/m-1-of-2.safetensors' does not exist",
                   "'m-2-of-2.safetensors'");
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "model-00001-of-00002.safetensors", "b"));
    expect_refused(&dir, SLUICE_E_NOT_FOUND, "/model-00002-of-00002.safetensors' does not exist",
                   "incomplete download");
}

/* Names that look like parts but are none. */
static void test_names_like_parts(void)
{
    static const char *const names[] = {
        "-of-3.safetensors",     "x-of-3.safetensors",   "x1-of-.safetensors",
        "m-4-of-3.safetensors",  "m-0-of-3.safetensors", "9.safetensors",
        "m-1-of-x3.safetensors", "1-of-1.safetensors",   "m-00001of00002.safetensors"};
    struct tempdir dir;
    struct checkpoint cp;
    REQUIRE(model_make(&dir));
    size_t n = sizeof names / sizeof names[0];
    for (size_t i = 0; i < n; i++) CHECK(write_one(&dir, names[i], names[i]));
    CHECK_OK(checkpoint_open(&cp, dir.path, &err));
    CHECK(cp.n_tensors == n);
    checkpoint_release(&cp);
    tempdir_remove(&dir);
}

static void test_duplicate_tensor(void)
{
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "consolidated.safetensors", "lm_head.weight"));
    CHECK(write_one(&dir, "weights.safetensors", "lm_head.weight"));
    expect_refused(&dir, SLUICE_E_MISMATCH, "tensor 'lm_head.weight'",
                   "both 'consolidated.safetensors' and 'weights.safetensors'");
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "1.safetensors", "a"));
    CHECK(write_one(&dir, "2.safetensors", "a"));
    CHECK(tempdir_write_text(&dir, INDEX,
                             "{\"weight_map\": {\"a\": \"1.safetensors\", "
                             "\"b\": \"2.safetensors\"}}"));
    expect_refused(&dir, SLUICE_E_MISMATCH, "tensor 'a'",
                   "both '1.safetensors' and '2.safetensors'");
}

static void test_truncated_shard(void)
{
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "model-00001-of-00002.safetensors", "a"));
    CHECK(write_one(&dir, "model-00002-of-00002.safetensors", "b"));
    struct stat st;
    const char *path = tempdir_path(&dir, "model-00002-of-00002.safetensors");
    CHECK(stat(path, &st) == 0 && truncate(path, st.st_size - 3) == 0);
    expect_path_refused(dir.path, SLUICE_E_FORMAT, "model-00002-of-00002.safetensors: tensor 'b'",
                        "3 bytes are missing");
    CHECK(truncate(path, 20) == 0);
    expect_path_refused(dir.path, SLUICE_E_FORMAT, "model-00002-of-00002.safetensors: the header",
                        "bytes past the end of the file");
    CHECK(truncate(path, 0) == 0);
    expect_refused(&dir, SLUICE_E_FORMAT, "model-00002-of-00002.safetensors: 0 bytes", "too few");
}

/* A folder with w.safetensors (tensor a), v.safetensors (tensor b) and this index. */
static void expect_index_refused(const char *index, enum sluice_status status, const char *says,
                                 const char *also)
{
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "w.safetensors", "a") && write_one(&dir, "v.safetensors", "b"));
    CHECK(tempdir_write_text(&dir, INDEX, index));
    expect_refused(&dir, status, says, also);
}

static void test_index_is_broken(void)
{
    expect_index_refused("{", SLUICE_E_FORMAT, INDEX ": the text: ", "string expected at byte 1");
    expect_index_refused("", SLUICE_E_FORMAT, INDEX, "is empty");
    expect_index_refused("{\"weight_map\": {\"a\": \"w.safetensors\",}}", SLUICE_E_FORMAT, INDEX,
                         "string expected at byte 37");
    expect_index_refused("{\"weight_map\": {\"a\": \"w.safetensors\"}, \"x\": 01}", SLUICE_E_FORMAT,
                         INDEX, "invalid token");
    expect_index_refused("{\"weight_map\": {\"a\": \"w.safetensors\", \"\\u0061\": \"v\"}}",
                         SLUICE_E_FORMAT, INDEX, "key 'a' appears twice");
    expect_index_refused("{\"weight_map\": {}, \"weight_map\": {}}", SLUICE_E_FORMAT, INDEX,
                         "key 'weight_map' appears twice");
    expect_index_refused("[]", SLUICE_E_FORMAT, INDEX ": is an array", "object");
    expect_index_refused("{}", SLUICE_E_FORMAT, INDEX ": weight_map is missing", "object");
    expect_index_refused("{\"weight_map\": 3}", SLUICE_E_FORMAT, INDEX ": weight_map is 3",
                         "object");
    expect_index_refused("{\"weight_map\": {}}", SLUICE_E_FORMAT, INDEX, "no tensors");
    expect_index_refused("{\"weight_map\": {\"a.b\": 3}}", SLUICE_E_FORMAT, INDEX,
                         "entry 'a.b' is no string");
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    CHECK(write_one(&dir, "model.safetensors", "a"));
    CHECK(symlink("gone", tempdir_path(&dir, INDEX)) == 0);
    expect_refused(&dir, SLUICE_E_NOT_FOUND, INDEX "' is a symbolic link", "incomplete download");
}

static void test_index_names_other_places(void)
{
    static const char *const names[] = {"../w.safetensors",
                                        "/etc/w.safetensors",
                                        "sub/w.safetensors",
                                        "..",
                                        "",
                                        ".safetensors",
                                        ".w.safetensors",
                                        "w.bin"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char index[200], says[200];
        snprintf(index, sizeof index, "{\"weight_map\": {\"a\": \"%s\"}}", names[i]);
        snprintf(says, sizeof says, "tensor 'a' is in '%s', which is not the name", names[i]);
        expect_index_refused(index, SLUICE_E_FORMAT, INDEX, says);
    }
}

enum { MANY_FILES = 3, MANY = 5000 };

static void many_name(char name[64], uint32_t file, uint32_t i)
{
    snprintf(name, 64, "layers.%u.experts.%04u.weight", file, i);
}

/* A file of so many tensors that several threads read the headers of its folder; dtype of the last.
 */
static void write_many(const struct tempdir *dir, uint32_t file, const char *dtype)
{
    char name[64], *header = malloc(MANY * 128), *at = header;
    REQUIRE(header);
    for (uint32_t i = 0; i < MANY; i++) {
        many_name(name, file, i);
        at += sprintf(at, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[0],\"data_offsets\":[0,0]}",
                      i ? "," : "{", name, i + 1 == MANY ? dtype : "U8");
    }
    memcpy(at, "}", 2);
    char path[32];
    snprintf(path, sizeof path, "m%u.safetensors", file);
    CHECK(write_header(dir, path, header, 0));
    free(header);
}

/* An index of files that names tensors in the order of step: 1 or -1. */
static void write_many_index(const struct tempdir *dir, int step, const char *last_file)
{
    char name[64], *text = malloc(MANY_FILES * MANY * 64), *at = text;
    REQUIRE(text);
    for (uint32_t k = 0; k < MANY_FILES * MANY; k++) {
        uint32_t which = step > 0 ? k : MANY_FILES * MANY - 1 - k;
        many_name(name, which / MANY, which % MANY);
        bool last = k + 1 == MANY_FILES * MANY;
        at += sprintf(at, "%s\"%s\":\"m%u.safetensors\"", k ? "," : "{\"weight_map\":{", name,
                      last && last_file ? 0 : which / MANY);
    }
    memcpy(at, "}}", 3);
    CHECK(tempdir_write_text(dir, INDEX, text));
    free(text);
}

static void expect_many(const struct tempdir *dir)
{
    struct checkpoint cp;
    CHECK_OK(checkpoint_open(&cp, dir->path, &err));
    CHECK(cp.n_tensors == MANY_FILES * MANY);
    char name[64], file[32];
    size_t near = 0;
    for (uint32_t f = 0; f < MANY_FILES; f++)
        for (uint32_t i = 0; i < MANY; i += 61) {
            many_name(name, f, i);
            snprintf(file, sizeof file, "m%u.safetensors", f);
            const struct tensor *t = checkpoint_find(&cp, name);
            REQUIRE(t && checkpoint_find_near(&cp, name, &near) == t);
            CHECK(t == &cp.tensors[near] && strcmp(checkpoint_file_name(&cp, t), file) == 0);
        }
    CHECK(checkpoint_find_near(&cp, "layers", &near) == NULL && near < cp.n_tensors);
    checkpoint_release(&cp);
}

/* Several threads read such headers; what they find does not depend on which is faster. */
static void test_many_tensors(void)
{
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    for (uint32_t f = 0; f < MANY_FILES; f++) write_many(&dir, f, "U8");
    expect_many(&dir);
    write_many_index(&dir, 1, NULL);
    expect_many(&dir);
    write_many_index(&dir, -1, NULL);
    expect_many(&dir);
    write_many_index(&dir, 1, "m0.safetensors");
    expect_path_refused(dir.path, SLUICE_E_MISMATCH,
                        "tensor 'layers.2.experts.4999.weight' is in "
                        "'m2.safetensors'",
                        "puts it in 'm0");
    write_many(&dir, 1, "U9");
    write_many(&dir, 2, "U8\", \"shape\": 3, \"x\":\"");
    for (uint32_t k = 0; k < 3; k++)
        expect_path_refused(dir.path, SLUICE_E_UNSUPPORTED, "m1.safetensors: tensor 'layers.1.",
                            "dtype 'U9' is not known");
    tempdir_remove(&dir);
}

/* As many names as there are tensors, file by file in order, but one is there twice. */
static void test_index_names_one_twice(void)
{
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    const char *empty = "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
    char header[200];
    snprintf(header, sizeof header, "{\"A\":%s}", empty);
    CHECK(write_header(&dir, "a.safetensors", header, 0));
    snprintf(header, sizeof header, "{\"B\":%s}", empty);
    CHECK(write_header(&dir, "b.safetensors", header, 0));
    snprintf(header, sizeof header, "{\"C\":%s,\"D\":%s}", empty, empty);
    CHECK(write_header(&dir, "c.safetensors", header, 0));
    CHECK(tempdir_write_text(&dir, INDEX,
                             "{\"weight_map\":{\"A\":\"a.safetensors\",\"B\":\"a.safetensors\","
                             "\"B\":\"b.safetensors\",\"C\":\"c.safetensors\"}}"));
    expect_refused(&dir, SLUICE_E_FORMAT, "'B'", "twice");
}

static void test_index_against_files(void)
{
    expect_index_refused(
        "{\"weight_map\": {\"a\": \"w.safetensors\", \"b\": \"gone.safetensors\"}}",
        SLUICE_E_NOT_FOUND, "'gone.safetensors'", INDEX);
    expect_index_refused("{\"weight_map\": {\"a\": \"w.safetensors\", \"x\": \"w.safetensors\"}}",
                         SLUICE_E_MISMATCH, "tensor 'x' is not in 'w.safetensors'", INDEX);
    expect_index_refused("{\"weight_map\": {\"a\": \"v.safetensors\", \"b\": \"w.safetensors\"}}",
                         SLUICE_E_MISMATCH, "tensor 'a' is in 'w.safetensors'",
                         INDEX " puts it in 'v.safetensors'");
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    CHECK(write_header(&dir, "w.safetensors",
                       "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                       "\"extra\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
                       8));
    CHECK(tempdir_write_text(&dir, INDEX, "{\"weight_map\": {\"a\": \"w.safetensors\"}}"));
    expect_refused(&dir, SLUICE_E_MISMATCH, "tensor 'extra' of 'w.safetensors' is not in", INDEX);
}

static void test_shard_is_a_folder(void)
{
    struct tempdir dir;
    REQUIRE(model_make(&dir));
    CHECK(tempdir_mkdir(&dir, "model.safetensors"));
    expect_refused(&dir, SLUICE_E_IO, "model.safetensors' is a folder", "not a file");
}

#define CASES(C)                                                                                   \
    C(single_file)                                                                                 \
    C(trailing_slashes_and_link)                                                                   \
    C(index)                                                                                       \
    C(folder_without_index)                                                                        \
    C(reference_alone_counts)                                                                      \
    C(path_is_no_folder)                                                                           \
    C(root_folder)                                                                                 \
    C(config_is_broken)                                                                            \
    C(no_weights)                                                                                  \
    C(missing_part)                                                                                \
    C(names_like_parts)                                                                            \
    C(duplicate_tensor)                                                                            \
    C(truncated_shard)                                                                             \
    C(index_is_broken)                                                                             \
    C(index_names_other_places)                                                                    \
    C(many_tensors)                                                                                \
    C(index_names_one_twice)                                                                       \
    C(index_against_files)                                                                         \
    C(shard_is_a_folder)
CHECK_MAIN(CASES)
