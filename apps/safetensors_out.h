/* Writing a safetensors file (a result_file.h) whose tensors are f32 matrices that come by rows. */
#ifndef APPS_SAFETENSORS_OUT_H
#define APPS_SAFETENSORS_OUT_H

#include "result_file.h"

struct out_tensor {
    char name[32];
    uint64_t rows, columns;
    uint64_t offset;  /* of the next row in the file; set by the functions below */
    uint64_t written; /* rows so far */
};

struct safetensors_out {
    struct result_file file;
    struct out_tensor *tensors;
    size_t n_tensors;
};

/* Creates the file with its header. tensors is the caller's and lives until close. */
SLUICE_NODISCARD enum sluice_status safetensors_out_open(struct safetensors_out *out,
                                                         const char *path,
                                                         struct out_tensor *tensors, size_t n,
                                                         struct sluice_error *err);
/* Appends rows to one tensor. */
SLUICE_NODISCARD enum sluice_status safetensors_out_rows(struct safetensors_out *out, size_t tensor,
                                                         const float *rows, uint64_t n_rows,
                                                         struct sluice_error *err);
/* Gives the file its name. All rows must have been written. */
SLUICE_NODISCARD enum sluice_status safetensors_out_close(struct safetensors_out *out,
                                                          struct sluice_error *err);
/* Removes what was written; does nothing after close. */
void safetensors_out_abort(struct safetensors_out *out);

#endif
