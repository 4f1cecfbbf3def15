/* A disk that fails: calls on files whose path has DISK_FAULT_PATH in it fail with the number in the file DISK_FAULT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fault(int fd, int reads) {
    const char *control = getenv("DISK_FAULT"), *part = getenv("DISK_FAULT_PATH");
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (!control || !part || length <= 0) return 0;
    path[length] = 0;
    if (!strstr(path, part)) return 0;
    FILE *file = fopen(control, "r");
    if (!file) return 0;
    int number = 0, also_reads = 0;
    if (fscanf(file, "%d %d", &number, &also_reads) < 1) number = 0;
    fclose(file);
    if (!number || (reads && !also_reads)) return 0;
    errno = number;
    return 1;
}

#define FAIL(result, name, reads, parameters, arguments, fd)            \
    result name parameters {                                            \
        static result(*real) parameters;                                \
        if (!real) real = (result(*) parameters)dlsym(RTLD_NEXT, #name); \
        int before = errno;                                             \
        if (fault(fd, reads)) return -1;                                \
        errno = before;                                                 \
        return real arguments;                                          \
    }

FAIL(ssize_t, write, 0, (int fd, const void *bytes, size_t count), (fd, bytes, count), fd)
FAIL(ssize_t, pwrite, 0, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at), fd)
FAIL(ssize_t, pwrite64, 0, (int fd, const void *bytes, size_t count, off64_t at), (fd, bytes, count, at), fd)
FAIL(ssize_t, read, 1, (int fd, void *bytes, size_t count), (fd, bytes, count), fd)
FAIL(ssize_t, pread, 1, (int fd, void *bytes, size_t count, off_t at), (fd, bytes, count, at), fd)
FAIL(ssize_t, pread64, 1, (int fd, void *bytes, size_t count, off64_t at), (fd, bytes, count, at), fd)
FAIL(int, fsync, 0, (int fd), (fd), fd)
FAIL(int, fdatasync, 0, (int fd), (fd), fd)
FAIL(int, ftruncate, 0, (int fd, off_t length), (fd, length), fd)
FAIL(int, ftruncate64, 0, (int fd, off64_t length), (fd, length), fd)
