/* The safetensors writer, standard output, and the search for the shipped model. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "input.h"
#include "model_path.h"
#include "output.h"
#include "safetensors_out.h"

static struct sluice_error err;

struct folder {
    char path[64];
    char file[96];
};

static struct folder make_folder(void)
{
    struct folder f = {.path = "/tmp/sluice-apps-XXXXXX"};
    if (!mkdtemp(f.path)) f.path[0] = '\0';
    snprintf(f.file, sizeof f.file, "%s/out.safetensors", f.path);
    return f;
}

static void remove_folder(const struct folder *f)
{
    unlink(f->file);
    CHECK(rmdir(f->path) == 0, "%s holds something: %s", f->path, strerror(errno));
}

static void test_rows_of_two_tensors_interleave(void)
{
    struct folder f = make_folder();
    struct out_tensor tensors[] = {{.name = "logits", .rows = 3, .columns = 2},
                                   {.name = "hidden.0", .rows = 3, .columns = 1}};
    struct safetensors_out out;
    REQUIRE(safetensors_out_open(&out, f.file, tensors, 2, &err) == SLUICE_OK, "%s", err.message);
    CHECK(access(f.file, F_OK) != 0, "no name before the end");
    CHECK_OK(safetensors_out_rows(&out, 0, (float[]){1, 2}, 1, &err));
    CHECK_OK(safetensors_out_rows(&out, 1, (float[]){7}, 1, &err));
    CHECK_OK(safetensors_out_rows(&out, 0, (float[]){3, 4, 5, 6}, 2, &err));
    CHECK_OK(safetensors_out_rows(&out, 1, (float[]){8, 9}, 2, &err));
    CHECK(safetensors_out_rows(&out, 1, (float[]){0}, 1, &err) == SLUICE_E_ARGUMENT);
    CHECK_OK(safetensors_out_close(&out, &err));

    struct buffer got = {0};
    REQUIRE(input_read(f.file, &got, &err) == SLUICE_OK, "%s", err.message);
    uint64_t header;
    memcpy(&header, got.data, 8);
    CHECK((header + 8) % 8 == 0);
    const char want[] =
        "{\"logits\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]},"
        "\"hidden.0\":{\"dtype\":\"F32\",\"shape\":[3,1],\"data_offsets\":[24,36]}}";
    CHECK(memcmp(got.data + 8, want, sizeof want - 1) == 0, "%.*s", (int)header, got.data + 8);
    const float values[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    REQUIRE(got.len == 8 + header + sizeof values);
    CHECK(memcmp(got.data + 8 + header, values, sizeof values) == 0);
    buffer_release(&got);
    remove_folder(&f);
}

static void test_abort_leaves_nothing(void)
{
    struct folder f = make_folder();
    struct out_tensor tensor = {.name = "logits", .rows = 1, .columns = 2};
    struct safetensors_out out;
    REQUIRE(safetensors_out_open(&out, f.file, &tensor, 1, &err) == SLUICE_OK, "%s", err.message);
    safetensors_out_abort(&out);
    safetensors_out_abort(&out);
    CHECK(access(f.file, F_OK) != 0);
    rmdir(f.path);
    CHECK(access(f.path, F_OK) != 0, "the temporary file is gone");
}

static void test_incomplete_file_gets_no_name(void)
{
    struct folder f = make_folder();
    struct out_tensor tensor = {.name = "logits", .rows = 2, .columns = 1};
    struct safetensors_out out;
    REQUIRE(safetensors_out_open(&out, f.file, &tensor, 1, &err) == SLUICE_OK, "%s", err.message);
    CHECK_OK(safetensors_out_rows(&out, 0, (float[]){1}, 1, &err));
    CHECK(safetensors_out_close(&out, &err) == SLUICE_E_STATE);
    CHECK(strstr(err.message, "1 of its 2 rows"), "%s", err.message);
    CHECK(access(f.file, F_OK) != 0);
    remove_folder(&f);
}

static void test_link_is_followed(void)
{
    struct folder f = make_folder();
    char link[128];
    snprintf(link, sizeof link, "%s/link", f.path);
    int fd = open(f.file, O_CREAT | O_WRONLY, 0600);
    REQUIRE(fd >= 0 && symlink(f.file, link) == 0);
    close(fd);
    struct out_tensor tensor = {.name = "t", .rows = 1, .columns = 1};
    struct safetensors_out out;
    REQUIRE(safetensors_out_open(&out, link, &tensor, 1, &err) == SLUICE_OK, "%s", err.message);
    CHECK_OK(safetensors_out_rows(&out, 0, (float[]){1}, 1, &err));
    CHECK_OK(safetensors_out_close(&out, &err));
    struct stat info;
    CHECK(lstat(link, &info) == 0 && S_ISLNK(info.st_mode), "the link is still one");
    CHECK(stat(f.file, &info) == 0 && info.st_size > 8);
    unlink(link);
    remove_folder(&f);
}

static void test_places_that_cannot_be_written(void)
{
    struct out_tensor tensor = {.name = "t", .rows = 1, .columns = 1};
    struct safetensors_out out;
    CHECK(safetensors_out_open(&out, "/nonexistent/x", &tensor, 1, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "/nonexistent/x"), "%s", err.message);
    CHECK(safetensors_out_open(&out, "/tmp", &tensor, 1, &err) == SLUICE_E_IO, "a folder");
    CHECK(safetensors_out_open(&out, "/dev/full", &tensor, 1, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "No space left"), "%s", err.message);
    CHECK(access("/dev/full", F_OK) == 0, "a device is not replaced");
    tensor = (struct out_tensor){.name = "t", .rows = UINT64_MAX, .columns = 2};
    CHECK(safetensors_out_open(&out, "/tmp/sluice-never", &tensor, 1, &err) == SLUICE_E_NOMEM);
    CHECK(access("/tmp/sluice-never", F_OK) != 0);
}

static void test_output_remembers_the_first_failure(void)
{
    struct output out;
    output_init(&out, open("/dev/full", O_WRONLY));
    CHECK(!output_write(&out, "x", 1));
    CHECK(out.error == ENOSPC);
    CHECK(output_status(&out, &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, "standard output"), "%s", err.message);
    close(out.fd);
    struct buffer failed = {.failed = true};
    output_init(&out, STDOUT_FILENO);
    CHECK(!output_buffer(&out, &failed));
    CHECK(output_status(&out, &err) == SLUICE_E_IO);
    out.error = EPIPE;
    CHECK(output_status(&out, &err) == SLUICE_OK, "a closed pipe is no failure");
}

static void test_shipped_model_is_found_near_the_program(void)
{
    struct folder f = make_folder();
    char name[256];
    const char *const folders[] = {"build", "build/x", "build/x/apps", "models",
                                   "models/storyteller"};
    for (size_t i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "%s/%s", f.path, folders[i]);
        REQUIRE(mkdir(name, 0700) == 0);
    }
    char program[256];
    snprintf(program, sizeof program, "%s/build/x/apps/sluice", f.path);
    struct buffer path = {0};
    enum sluice_status status = model_path_find(program, &path, &err);
    CHECK(status == SLUICE_E_NOT_FOUND || !strstr(path.data, f.path), "without a config.json");
    if (status != SLUICE_OK) CHECK(strstr(err.message, program), "%s", err.message);

    snprintf(name, sizeof name, "%s/models/storyteller/config.json", f.path);
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    REQUIRE(fd >= 0);
    close(fd);
    CHECK_OK(model_path_find(program, &path, &err));
    snprintf(name, sizeof name, "%s/models/storyteller", f.path);
    CHECK(strcmp(path.data, name) == 0, "%s", path.data);
    buffer_release(&path);
    snprintf(name, sizeof name, "%s/models/storyteller/config.json", f.path);
    unlink(name);
    for (size_t i = 5; i-- > 0;) {
        snprintf(name, sizeof name, "%s/%s", f.path, folders[i]);
        rmdir(name);
    }
    remove_folder(&f);
}

#define CASES(C)                                                                                   \
    C(rows_of_two_tensors_interleave)                                                              \
    C(abort_leaves_nothing)                                                                        \
    C(incomplete_file_gets_no_name)                                                                \
    C(link_is_followed)                                                                            \
    C(places_that_cannot_be_written)                                                               \
    C(output_remembers_the_first_failure)                                                          \
    C(shipped_model_is_found_near_the_program)
CHECK_MAIN(CASES)
