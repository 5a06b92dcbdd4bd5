#include "keys.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define NO_HELPER "no helper program is run"
#define NO_GATEWAY "there is no gateway: images are found in the store's index"

const struct key file_keys[] = {
    {"imagePath", KEY_IMAGE_PATH, NULL},
    {"system", KEY_SYSTEM, NULL},
    {"siteFs", KEY_FS, NULL},
    {"siteEnv", KEY_ENV, NULL},
    {"siteEnvAppend", KEY_ENV_APPEND, NULL},
    {"siteEnvPrepend", KEY_ENV_PREPEND, NULL},
    {"siteEnvUnset", KEY_ENV_UNSET, NULL},
    {"defaultModules", KEY_DEFAULT_MODULES, NULL},
    {"defaultImageType", KEY_DEFAULT_IMAGE_TYPE, NULL},
    {"optUdiImage", KEY_OPT_UDI_IMAGE, NULL},
    {"etcPath", KEY_ETC_PATH, NULL},
    {"populateEtcDynamically", KEY_POPULATE_ETC, NULL},
    {"usersToImport", KEY_USERS_TO_IMPORT, NULL},
    {"maxGroupCount", KEY_MAX_GROUP_COUNT, NULL},
    {"mountPropagationStyle", KEY_PROPAGATION, NULL},
    {"perNodeCacheSizeLimit", KEY_CACHE_SIZE_LIMIT, NULL},
    {"perNodeCacheAllowedFsType", KEY_CACHE_TYPES, NULL},
    {"perNodeCachePath", KEY_CACHE_PATH, NULL},
    {"lenientWorkdir", KEY_LENIENT_WORKDIR, NULL},
    {"udiMount", KEY_UDI_MOUNT, NULL},
    {"sitePreMountHook", KEY_PRE_HOOK, NULL},
    {"sitePreHookMount", KEY_PRE_HOOK, NULL},
    {"sitePostMountHook", KEY_POST_HOOK, NULL},
    {"loopMount", KEY_NO_EFFECT, "the image is mounted where nobody else sees it"},
    {"rootfsType", KEY_NO_EFFECT, "the root is the image, with a tmpfs over it"},
    {"udiRootPath", KEY_NO_EFFECT, NO_HELPER},
    {"modprobePath", KEY_NO_EFFECT, NO_HELPER},
    {"insmodPath", KEY_NO_EFFECT, NO_HELPER},
    {"cpPath", KEY_NO_EFFECT, NO_HELPER},
    {"mvPath", KEY_NO_EFFECT, NO_HELPER},
    {"chmodPath", KEY_NO_EFFECT, NO_HELPER},
    {"ddPath", KEY_NO_EFFECT, NO_HELPER},
    {"mkfsXfsPath", KEY_MKFS_XFS, NULL},
    {"imageGateway", KEY_NO_EFFECT, NO_GATEWAY},
    {"gatewayTimeout", KEY_NO_EFFECT, NO_GATEWAY},
    {"siteResources", KEY_NO_EFFECT, "modules and siteFs bring what GPUs and MPI need"},
    {"mountCmd", KEY_NO_EFFECT, "the launcher mounts without a program"},
    {"allowLocalChroot", KEY_NO_EFFECT, "there are no images of the type 'local'"},
    {"allowLibcPwdCalls", KEY_NO_EFFECT, "no name service is asked"},
    {"mountUdiRootWritable", KEY_NO_EFFECT, "whoever wants to write says --writable"},
    {"batchType", KEY_NO_EFFECT, "the batch system is known by its environment"},
    {"nodeContextPrefix", KEY_NO_EFFECT, "nothing is run on other nodes"},
    {"autoLoadKernelModule", KEY_DEPRECATED, "no kernel module is loaded"},
    {"kmodBasePath", KEY_DEPRECATED, "no kernel module is loaded"},
    {"kmodCacheFile", KEY_DEPRECATED, "no kernel module is loaded"},
    {"optionalSshdAsRoot", KEY_DEPRECATED, "no sshd is started"},
    {NULL, KEY_END, NULL},
};

const struct key module_keys[] = {
    {"siteFs", KEY_FS, NULL},
    {"siteEnv", KEY_ENV, NULL},
    {"siteEnvAppend", KEY_ENV_APPEND, NULL},
    {"siteEnvPrepend", KEY_ENV_PREPEND, NULL},
    {"siteEnvUnset", KEY_ENV_UNSET, NULL},
    {"copyPath", KEY_COPY_PATH, NULL},
    {"conflict", KEY_CONFLICT, NULL},
    {"userhook", KEY_USERHOOK, NULL},
    {"enabled", KEY_ENABLED, NULL},
    {"requires", KEY_REQUIRES, NULL},
    {"roothook", KEY_ROOTHOOK, NULL},
    {NULL, KEY_END, NULL},
};

const struct key *key_find(const struct key *keys, const char *name)
{
    for (; keys->name != NULL; keys++)
        if (strcmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

const struct key *key_find_in_any_case(const struct key *keys, const char *name)
{
    for (; keys->name != NULL; keys++)
        if (strcasecmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

enum { LONGEST = 63 };

static size_t least(size_t a, size_t b, size_t c)
{
    size_t lesser = a < b ? a : b;

    return lesser < c ? lesser : c;
}

/* How many letters must be put in, left out or changed to make one of the other; a letter in the
   other case is the same. */
static size_t distance(const char *one, const char *other)
{
    size_t width = strnlen(other, LONGEST), row[LONGEST + 1];

    for (size_t at = 0; at <= width; at++)
        row[at] = at;
    for (size_t line = 1; line <= strnlen(one, LONGEST); line++) {
        size_t before = row[0];

        row[0] = line;
        for (size_t at = 1; at <= width; at++) {
            int differs = tolower((unsigned char)one[line - 1]) !=
                          tolower((unsigned char)other[at - 1]);
            size_t changed = before + (size_t)differs;

            before = row[at];
            row[at] = least(changed, row[at - 1] + 1, row[at] + 1);
        }
    }
    return row[width];
}

const struct key *key_nearest(const struct key *keys, const char *name)
{
    const struct key *nearest = keys;
    size_t best = distance(keys->name, name);

    for (; keys->name != NULL; keys++) {
        size_t far = distance(keys->name, name);

        if (far < best) {
            best = far;
            nearest = keys;
        }
    }
    return nearest;
}
