#include "batch.h"

#include <stdlib.h>

/* Of the batch systems: what tells jobs apart, and steps or whatever has its own processes killed at
   its end. */
static const struct {
    const char *name;
    enum { JOB, STEP, PART } is;
} names[] = {
    {"SLURM_JOB_ID", JOB}, {"SLURM_STEP_ID", STEP}, {"PBS_JOBID", JOB},     {"ALPS_APP_ID", STEP},
    {"PALS_APID", STEP},   {"LSB_JOBID", JOB},      {"LSB_JOBINDEX", PART}, {"FLUX_JOB_ID", JOB},
    {"FLUX_STEP_ID", PART}, {"COBALT_JOBID", JOB},  {"OAR_JOB_ID", JOB},    {"JOB_ID", PART},
    {"SGE_TASK_ID", PART},
};
/* Without a job: who logs out may take the processes of this session along. */
#define SESSION "XDG_SESSION_ID"

static int write_variable(FILE *out, const char *name)
{
    const char *value = getenv(name);

    if (value == NULL || value[0] == '\0')
        return 0;
    fprintf(out, "%s=%s\n", name, value);
    return 1;
}

void batch_write(FILE *out)
{
    int found = 0;

    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++)
        found |= write_variable(out, names[at].name);
    if (!found)
        write_variable(out, SESSION);
}

const char *batch_job(void)
{
    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++) {
        const char *value = names[at].is == JOB ? getenv(names[at].name) : NULL;

        if (value != NULL && value[0] != '\0')
            return value;
    }
    return NULL;
}

int batch_is_step(void)
{
    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++)
        if (names[at].is == STEP && getenv(names[at].name) != NULL)
            return 1;
    return 0;
}
