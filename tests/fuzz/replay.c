/* Feeds the files of the folders that are its arguments to a fuzz target; TAP. */
#include <dirent.h>
#include <string.h>

#include "fuzz.h"

static int count;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t size = 0;
    size_t cap = 1u << 20;
    uint8_t *data = malloc(cap);
    if (file && data) size = fread(data, 1, cap, file);
    uint8_t *exact = malloc(size ? size : 1); /* so that a read past the end is seen */
    if (!file || !data || !exact) {
        printf("Bail out! cannot read %s\n", path);
        exit(1);
    }
    memcpy(exact, data, size);
    fclose(file);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    free(data);
    printf("ok %d - %s\n", ++count, strrchr(path, '/') + 1);
    fflush(stdout);
}

static void replay_folder(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) return;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        char name[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        replay_file(name);
    }
    closedir(dir);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) replay_folder(argv[i]);
    printf("1..%d\n", count);
    return count > 0 ? 0 : 1;
}
