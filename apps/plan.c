/* The memory plan and the way of reading that an engine chose, as text and as JSON. */
#include <inttypes.h>
#include <string.h>

#include "app.h"
#include "units.h"

static struct sluice_engine_info info_of(const sluice_engine *engine)
{
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(engine, &info);
    return info;
}

static uint32_t all_experts(const struct sluice_engine_info *info)
{
    return info->n_expert_layers * info->n_experts;
}

static void add_bytes(struct buffer *out, const char *what, uint64_t bytes)
{
    char size[UNITS_CAP];
    units_bytes(bytes, size);
    buffer_printf(out, "%s %s", what, size);
}

static void memory_line(const struct sluice_engine_info *info, struct buffer *out)
{
    add_bytes(out, "memory plan:", info->plan_bytes);
    add_bytes(out, info->mapped ? " and the page cache; program" : "; program",
              info->overhead_bytes);
    add_bytes(out, ", activations", info->scratch_bytes);
    add_bytes(out, ", session", info->session_bytes);
    if (!info->mapped) {
        add_bytes(out, ", dense weights", info->resident_bytes);
        buffer_printf(out, ", %" PRIu32 " of %" PRIu32 " experts", info->n_slots,
                      all_experts(info));
        add_bytes(out, "", info->slot_bytes);
        add_bytes(out, "; of", info->budget_bytes);
        add_bytes(out, ", at least", info->smallest_plan_bytes);
    }
    buffer_text(out, "\n");
}

static void reading_line(const struct sluice_engine_info *info, struct buffer *out)
{
    buffer_printf(out, "experts are read by: %s", info->io_engine);
    if (!info->mapped) {
        buffer_printf(out, ", %s, depth %" PRIu32,
                      info->io_direct ? "O_DIRECT" : "through the page cache", info->io_depth);
        if (info->io_registered_files) buffer_text(out, ", registered files");
        if (info->io_registered_buffers) buffer_text(out, ", registered buffers");
    }
    if (info->io_note[0]) buffer_printf(out, " (%s)", info->io_note);
    buffer_text(out, "\n");
}

void app_plan_text(const sluice_engine *engine, struct buffer *out)
{
    struct sluice_engine_info info = info_of(engine);
    memory_line(&info, out);
    if (all_experts(&info)) reading_line(&info, out);
}

json_t *app_plan_json(const sluice_engine *engine)
{
    struct sluice_engine_info info = info_of(engine);
    json_t *root = json_object();
#define SET(field) json_object_set_new(root, #field, json_integer((json_int_t)info.field))
    SET(plan_bytes);
    SET(budget_bytes);
    SET(smallest_plan_bytes);
    SET(overhead_bytes);
    SET(scratch_bytes);
    SET(session_bytes);
    SET(resident_bytes);
    SET(slot_bytes);
    SET(n_slots);
    SET(io_depth);
#undef SET
    json_object_set_new(root, "io_engine", json_string(info.io_engine));
    json_object_set_new(root, "io_note", json_string(info.io_note));
    json_object_set_new(root, "io_direct", json_boolean(info.io_direct));
    json_object_set_new(root, "io_registered_files", json_boolean(info.io_registered_files));
    json_object_set_new(root, "io_registered_buffers", json_boolean(info.io_registered_buffers));
    return root;
}
