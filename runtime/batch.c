#include "batch.h"

#include <stdlib.h>

/* Of the batch systems: job, and step or whatever has its own processes killed at its end. */
static const char *const names[] = {
    "SLURM_JOB_ID", "SLURM_STEP_ID", "PBS_JOBID",   "ALPS_APP_ID", "PALS_APID",  "LSB_JOBID",
    "LSB_JOBINDEX", "FLUX_JOB_ID",   "FLUX_STEP_ID", "COBALT_JOBID", "OAR_JOB_ID", "JOB_ID",
    "SGE_TASK_ID",
};
static const char *const jobs[] = {"SLURM_JOB_ID", "PBS_JOBID",    "LSB_JOBID", "FLUX_JOB_ID",
                                   "COBALT_JOBID", "OAR_JOB_ID"};
static const char *const steps[] = {"SLURM_STEP_ID", "ALPS_APP_ID", "PALS_APID"};
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
        found |= write_variable(out, names[at]);
    if (!found)
        write_variable(out, SESSION);
}

const char *batch_job(void)
{
    for (size_t at = 0; at < sizeof jobs / sizeof jobs[0]; at++) {
        const char *value = getenv(jobs[at]);

        if (value != NULL && value[0] != '\0')
            return value;
    }
    return NULL;
}

int batch_is_step(void)
{
    for (size_t at = 0; at < sizeof steps / sizeof steps[0]; at++)
        if (getenv(steps[at]) != NULL)
            return 1;
    return 0;
}
