/* A far file system: opening and reading files below the folders SLOW_FILES (a:b) last SLOW_MICROSECONDS longer each.
 *
 *     cc -shared -fPIC -O2 -o slow_files.so slow_files.c -ldl && SLOW_FILES=/photos LD_PRELOAD=./slow_files.so COMMAND
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define MOST 65536
static char slow[MOST];

static int below(const char *path) {
    const char *folder = getenv("SLOW_FILES");
    while (folder && *folder) {
        size_t length = strcspn(folder, ":");
        if (!strncmp(path, folder, length) && path[length] == '/') return 1;
        folder += length + (folder[length] == ':');
    }
    return 0;
}

static void wait_for_it(void) { usleep(atoi(getenv("SLOW_MICROSECONDS"))); }

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = va_arg(rest, mode_t);                               \
        va_end(rest);                                                     \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);    \
        int is_slow = below(path);                                        \
        if (is_slow) wait_for_it();                                       \
        int file = real(path, flags, mode);                               \
        if (file >= 0 && file < MOST) slow[file] = is_slow;               \
        return file;                                                      \
    }
OPEN(open)
OPEN(open64)

#define PREAD(name)                                                       \
    ssize_t name(int file, void *buffer, size_t size, off_t offset) {     \
        ssize_t (*real)(int, void *, size_t, off_t) = dlsym(RTLD_NEXT, #name); \
        if (file < MOST && slow[file]) wait_for_it();                     \
        return real(file, buffer, size, offset);                          \
    }
PREAD(pread)
PREAD(pread64)
