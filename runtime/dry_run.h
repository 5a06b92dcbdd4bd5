/* What a launch would do, as JSON (--dry-run). */
#ifndef SHIFTER_DRY_RUN_H
#define SHIFTER_DRY_RUN_H

#include "args.h"
#include "environment.h"
#include "plan.h"
#include "record.h"

struct dry_run {
    const struct job *job;
    const struct plan *plan;
    const struct record *record;
    const struct environment *environment;
    char *const *command;
};

/* Print it on standard output, one object. */
void dry_run(const struct dry_run *run);

#endif
