#include "ambient.h"

#include "fail.h"
#include "files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TYPE_HINT "SHIFTER_IMAGETYPE is docker or id"

const char *ambient(const char *name)
{
    const char *value = name != NULL ? getenv(name) : NULL;

    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Where an image may be named: by the caller, by Shifter's plugin of Slurm, by Torque's -v. */
static const struct {
    const char *image, *type, *request;
} places[] = {
    {"SHIFTER_IMAGE", "SHIFTER_IMAGETYPE", "SHIFTER_IMAGEREQUEST"},
    {"SLURM_SPANK_SHIFTER_IMAGE", "SLURM_SPANK_SHIFTER_IMAGETYPE",
     "SLURM_SPANK_SHIFTER_IMAGEREQUEST"},
    {"UDI", NULL, NULL},
};

static int is_id(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static const char *with_type(const char *image, const char *type)
{
    size_t size = strlen(image) + sizeof "id:";
    char *name;

    if (type != NULL && strcmp(type, "docker") != 0 && strcmp(type, "id") != 0)
        fail(0, TYPE_HINT, "there are no images of the type '%s'", type);
    /* A container's own SHIFTER_IMAGE is an id without its type. */
    if (type == NULL ? !is_id(image)
                     : strcmp(type, "id") != 0 || strncmp(image, "id:", 3) == 0)
        return image;
    name = must_allocate(1, size);
    snprintf(name, size, "id:%s", image);
    return name;
}

static void read_image(struct job *job)
{
    for (size_t at = 0; at < sizeof places / sizeof places[0]; at++) {
        const char *image = ambient(places[at].image);

        if (image == NULL)
            continue;
        job->request = ambient(places[at].request);
        job->image = with_type(image, ambient(places[at].type));
        if (job->request == NULL)
            job->request = image;
        return;
    }
}

/* The caller's own variable, or the one that Slurm made of an option. */
static const char *either(const char *name, const char *twin)
{
    const char *value = ambient(name);

    return value != NULL ? value : ambient(twin);
}

void ambient_read(struct job *job)
{
    const char *volumes = either("SHIFTER_VOLUME", "SLURM_SPANK_SHIFTER_VOLUME");

    if (job->image == NULL)
        read_image(job);
    else
        job->request = job->image;
    if (job->volumes.count == 0 && volumes != NULL)
        words_add(&job->volumes, volumes);
    if (job->modules == NULL)
        job->modules = either("SHIFTER_MODULE", "SLURM_SPANK_SHIFTER_MODULE");
    if (job->store == NULL)
        job->store = ambient("SHIFTER_STORE");
}
