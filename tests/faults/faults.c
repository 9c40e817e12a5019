/* Faults of a disk, on demand: preloaded, it counts the calls that change what lies under one directory, and from a
   chosen one on answers with an error, or ends the process. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CHANGE = 1, REMOVE = 2, READ = 4 };
enum action { ANSWER_ONCE, ANSWER_FROM_NOW_ON, KILL };

static char under[PATH_MAX];
static int counts, fails, number, told;
static enum action doing;
static long at, seen;
static volatile int armed;

/* Begin to count. The call with number `first` (from 1) of a kind in `what` is the first to feel the fault; those in
   `with` feel one that lasts. Which call it was and on which path is written to the open file `report`. */
void faults_arm(const char *directory, long first, int what, int with, int error, int action, int report) {
  snprintf(under, sizeof under, "%s", directory);
  at = first, counts = what, fails = with, number = error, doing = action, told = report;
  seen = 0;
  armed = 1;
}

/* End it; return how many calls were counted. */
long faults_disarm(void) {
  armed = 0;
  return seen;
}

static int inside(const char *path) {
  size_t length = strlen(under);
  return !strncmp(path, under, length) && (path[length] == '/' || !path[length]);
}

static const char *whole(int directory, const char *path, char *buffer) {
  char link[64];
  if (path[0] == '/') return path;
  if (directory == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
  else snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
  ssize_t length = readlinkat(AT_FDCWD, link, buffer, PATH_MAX - 1);
  if (length < 0) return "";
  if (*path) snprintf(buffer + length, PATH_MAX - length, "/%s", path);
  else buffer[length] = 0;
  return buffer;
}

/* Return whether this call fails, and set errno. */
static int refused(const char *call, enum kind kind, int directory, const char *path) {
  char buffer[PATH_MAX];
  if (!armed || !path) return 0;
  path = whole(directory, path, buffer);
  if (!inside(path)) return 0;
  long now = kind & counts ? __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) : __atomic_load_n(&seen, __ATOMIC_SEQ_CST);
  int first = (kind & counts) && now == at;
  if (first) {
    dprintf(told, "%s %s", call, path + strlen(under));
    if (doing == KILL) kill(0, SIGKILL);
  }
  if (doing == KILL || !(first || (doing == ANSWER_FROM_NOW_ON && now >= at && (kind & fails)))) return 0;
  errno = number;
  return 1;
}

static int refused_open(const char *call, enum kind kind, int handle) {
  char link[64], path[PATH_MAX];
  if (!armed) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  ssize_t length = readlinkat(AT_FDCWD, link, path, sizeof path - 1);
  if (length < 0 || path[0] != '/') return 0; /* a pipe or a socket */
  path[length] = 0;
  return refused(call, kind, AT_FDCWD, path);
}

#define REAL(name) ((__typeof__(&name))({ static void *found; if (!found) found = dlsym(RTLD_NEXT, #name); found; }))
#define OPENS(flags) ((flags) & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR) ? CHANGE : READ)

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    return refused("open", OPENS(flags), AT_FDCWD, path) ? -1 : REAL(name)(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
  int name(int directory, const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    return refused("open", OPENS(flags), directory, path) ? -1 : REAL(name)(directory, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)
#define FOPEN(name) \
  FILE *name(const char *path, const char *mode) { \
    return refused("open", mode[0] == 'r' && !strchr(mode, '+') ? READ : CHANGE, AT_FDCWD, path) \
      ? NULL : REAL(name)(path, mode); \
  }
FOPEN(fopen)
FOPEN(fopen64)

#define BY_HANDLE(type, call, kind, name, handle, parameters, arguments) \
  type name parameters { return refused_open(call, kind, handle) ? -1 : REAL(name) arguments; }
BY_HANDLE(ssize_t, "write", CHANGE, write, f, (int f, const void *b, size_t n), (f, b, n))
BY_HANDLE(ssize_t, "write", CHANGE, writev, f, (int f, const struct iovec *v, int n), (f, v, n))
BY_HANDLE(ssize_t, "write", CHANGE, pwrite, f, (int f, const void *b, size_t n, off_t o), (f, b, n, o))
BY_HANDLE(ssize_t, "write", CHANGE, pwrite64, f, (int f, const void *b, size_t n, off64_t o), (f, b, n, o))
BY_HANDLE(ssize_t, "write", CHANGE, sendfile, f, (int f, int from, off_t *o, size_t n), (f, from, o, n))
BY_HANDLE(ssize_t, "write", CHANGE, sendfile64, f, (int f, int from, off64_t *o, size_t n), (f, from, o, n))
BY_HANDLE(ssize_t, "write", CHANGE, copy_file_range, f,
          (int from, off64_t *i, int f, off64_t *o, size_t n, unsigned flags), (from, i, f, o, n, flags))
BY_HANDLE(int, "fsync", CHANGE, fsync, f, (int f), (f))
BY_HANDLE(int, "fsync", CHANGE, fdatasync, f, (int f), (f))
BY_HANDLE(int, "truncate", CHANGE, ftruncate, f, (int f, off_t n), (f, n))
BY_HANDLE(int, "truncate", CHANGE, ftruncate64, f, (int f, off64_t n), (f, n))
BY_HANDLE(ssize_t, "read", READ, read, f, (int f, void *b, size_t n), (f, b, n))
BY_HANDLE(ssize_t, "read", READ, pread, f, (int f, void *b, size_t n, off_t o), (f, b, n, o))
BY_HANDLE(ssize_t, "read", READ, pread64, f, (int f, void *b, size_t n, off64_t o), (f, b, n, o))

#define BY_PATH(call, kind, name, directory, path, parameters, arguments) \
  int name parameters { return refused(call, kind, directory, path) ? -1 : REAL(name) arguments; }
BY_PATH("mkdir", CHANGE, mkdir, AT_FDCWD, p, (const char *p, mode_t m), (p, m))
BY_PATH("mkdir", CHANGE, mkdirat, d, p, (int d, const char *p, mode_t m), (d, p, m))
BY_PATH("rename", CHANGE, rename, AT_FDCWD, q, (const char *p, const char *q), (p, q))
BY_PATH("rename", CHANGE, renameat, e, q, (int d, const char *p, int e, const char *q), (d, p, e, q))
BY_PATH("link", CHANGE, link, AT_FDCWD, q, (const char *p, const char *q), (p, q))
BY_PATH("symlink", CHANGE, symlink, AT_FDCWD, q, (const char *p, const char *q), (p, q))
BY_PATH("symlink", CHANGE, symlinkat, d, q, (const char *p, int d, const char *q), (p, d, q))
BY_PATH("truncate", CHANGE, truncate, AT_FDCWD, p, (const char *p, off_t n), (p, n))
BY_PATH("unlink", REMOVE, unlink, AT_FDCWD, p, (const char *p), (p))
BY_PATH("unlink", REMOVE, unlinkat, d, p, (int d, const char *p, int f), (d, p, f))
BY_PATH("rmdir", REMOVE, rmdir, AT_FDCWD, p, (const char *p), (p))
BY_PATH("stat", READ, stat, AT_FDCWD, p, (const char *p, struct stat *s), (p, s))
BY_PATH("stat", READ, stat64, AT_FDCWD, p, (const char *p, struct stat64 *s), (p, s))
BY_PATH("stat", READ, lstat, AT_FDCWD, p, (const char *p, struct stat *s), (p, s))
BY_PATH("stat", READ, lstat64, AT_FDCWD, p, (const char *p, struct stat64 *s), (p, s))
BY_PATH("stat", READ, fstatat, d, p, (int d, const char *p, struct stat *s, int f), (d, p, s, f))
BY_PATH("stat", READ, fstatat64, d, p, (int d, const char *p, struct stat64 *s, int f), (d, p, s, f))
BY_PATH("access", READ, access, AT_FDCWD, p, (const char *p, int m), (p, m))

DIR *fdopendir(int f) { return refused_open("list", READ, f) ? NULL : REAL(fdopendir)(f); }
DIR *opendir(const char *path) { return refused("list", READ, AT_FDCWD, path) ? NULL : REAL(opendir)(path); }
ssize_t readlink(const char *path, char *buffer, size_t n) {
  return refused("readlink", READ, AT_FDCWD, path) ? -1 : REAL(readlink)(path, buffer, n);
}
