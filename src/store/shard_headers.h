/* The headers of a model's weight files, read by several threads where that pays. */
#ifndef SLUICE_STORE_SHARD_HEADERS_H
#define SLUICE_STORE_SHARD_HEADERS_H

#include "format/safetensors.h"
#include "io/file.h"

/*
 * Reads the headers of n mapped files to out [n]; entries live in arena. Threads are gone when it
 * returns; how many they are is a matter of the processor, not of the engine's options. Errors are
 * those of safetensors_parse(), of the first file in order that has one.
 */
enum sluice_status shard_headers_read(const struct file_map *files, size_t n, struct arena *arena,
                                      struct safetensors_header *out, struct sluice_error *err);

#endif
