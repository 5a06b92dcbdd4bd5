/* The node directory: where launches of one user on one node find each other (README.md). */
#ifndef SHIFTER_NODE_H
#define SHIFTER_NODE_H

#include <dirent.h>
#include <limits.h>
#include <stddef.h>

struct node {
    int directory; /* -1: there is none to be had, and every launch is alone */
    char path[PATH_MAX];
};

/* Open the caller's directory on this node, made if need be. */
void node_open(struct node *node);

/* Name a file by what it is about: its kind, a dot, 16 hex digits (FNV-1a of the key). */
enum { NODE_FILE_NAME = 20 };
void node_file_name(char name[NODE_FILE_NAME], char kind, const char *key, size_t length);

/* Its names, from the first on; NULL if it cannot be listed. */
DIR *node_list(const struct node *node);

/* Remove the directory, if no container has a file in it any more. */
void node_close(const struct node *node);

/* Do so if this process ends before it is in a container; NULL: it is, and the directory is left
   to the keeper. */
void node_close_at_exit(const struct node *node);

#endif
