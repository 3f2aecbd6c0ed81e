// Preloaded into the server (LD_PRELOAD). It records below libc what a power failure may take back, ends the process
// at a chosen call, and returns errors by schedule. It must not decide what is lost: `disk.rs` does, from the record.
//
// The record is a file of entries, written before the call that they describe. It outlives the process, so a power
// failure can follow a kill and a restart. Files are known by inode, because the server flushes the write-ahead log
// through another descriptor than the one that writes it. No call reaches the disk's own flush: an `fsync` here only
// writes an entry. All calls in the directory are made one at a time; only the time of a flush is outside the lock.
//
// Settings, all from the environment:
//   POWER_DISK     the directory that is watched, absolute
//   POWER_LOG      the record
//   POWER_STASH    a directory of the same file system that keeps removed files
//   POWER_TRIGGER  "<call> <suffix> <n> <when>": ends the process at the n-th such call on a path with this suffix;
//                  `*` is any call or any path; when: 0 before the call, 1 during a flush, 2 after the call
//   POWER_FAULT    "<call> <suffix> <errno> <from> <count>": such calls fail; errno 0 makes a short write
//   POWER_WHILE    the faults count only while this file exists
//   POWER_LIE      a suffix: flushes of such paths return 0 and flush nothing; "/" is directories
//   POWER_SYNC_US  a flush takes up to this many microseconds
//   POWER_SEED     of these times
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE, CREATE, UNLINK, RENAME, SYNC_BEGIN, SYNC_END, SYNC_FAILED, CRASH, FAULT };

// The head of an entry; `disk.rs` reads the same. The path and the old content follow.
struct entry {
    uint32_t kind, path_len;
    uint64_t inode, offset, len, size, old_len;
};

enum { BEFORE, DURING, AFTER, FILES = 4096, FAILED_MAX = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *disk, *stash, *lie, *only_while;
static size_t disk_len;
static int record = -1;
static uint64_t token;
static unsigned seed, sync_us;
static char trigger_call[16], trigger_suffix[64], fault_call[16], fault_suffix[64];
static long trigger_n = -1, trigger_when, trigger_seen, fault_errno, fault_from, fault_count, fault_seen;
// As the kernel does it: each descriptor that is open when a flush fails learns of it once.
static struct { uint64_t inode, count; } failed[FAILED_MAX];
static uint64_t failures_known[FILES];

static void die(const char *what) {
    dprintf(2, "shim: %s: %s\n", what, strerror(errno));
    syscall(SYS_exit_group, 87);
}

__attribute__((constructor)) static void start(void) {
    disk = getenv("POWER_DISK");
    if (!disk) return;
    disk_len = strlen(disk);
    stash = getenv("POWER_STASH");
    lie = getenv("POWER_LIE");
    only_while = getenv("POWER_WHILE");
    const char *text;
    if ((text = getenv("POWER_SYNC_US"))) sync_us = atoi(text);
    if ((text = getenv("POWER_SEED"))) seed = strtoul(text, NULL, 10);
    if ((text = getenv("POWER_TRIGGER"))) sscanf(text, "%15s %63s %ld %ld", trigger_call, trigger_suffix, &trigger_n, &trigger_when);
    if ((text = getenv("POWER_FAULT")))
        sscanf(text, "%15s %63s %ld %ld %ld", fault_call, fault_suffix, &fault_errno, &fault_from, &fault_count);
    record = syscall(SYS_openat, AT_FDCWD, getenv("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (record < 0) die("cannot open the record");
    token = (uint64_t)getpid() << 32;
}

static int is_inside(const char *path) {
    return disk && path && !strncmp(path, disk, disk_len) && (path[disk_len] == '/' || !path[disk_len]);
}

static int ends_with(const char *path, const char *suffix) {
    size_t length = strlen(path), wanted = strlen(suffix);
    return !strcmp(suffix, "*") || (length >= wanted && !strcmp(path + length - wanted, suffix));
}

// The index of SQLite is shared memory, and the lock holds nothing: neither outlives a start.
static int has_content(const char *path) {
    return is_inside(path) && !ends_with(path, "-shm") && !ends_with(path, "/lock");
}

static int path_of(int fd, char *path) {
    char link[32];
    if (!disk) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    char *gone = strstr(path, " (deleted)");
    if (gone) *gone = 0;
    return is_inside(path);
}

static uint64_t inode_of(const char *path) {
    struct stat status;
    return lstat(path, &status) ? 0 : status.st_ino;
}

static uint64_t parent_of(const char *path) {
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash) *slash = 0;
    return inode_of(parent);
}

static void append(struct entry head, const char *path, const void *old) {
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path_len}, {(void *)old, head.old_len}};
    ssize_t length = sizeof head + head.path_len + head.old_len;
    if (syscall(SYS_writev, record, parts, 3) != length) die("cannot write the record");
}

static void note(enum kind kind, const char *path, uint64_t inode, uint64_t offset) {
    append((struct entry){.kind = kind, .path_len = strlen(path), .inode = inode, .offset = offset}, path, NULL);
}

static void point(const char *call, const char *path, long when) {
    if (trigger_n < 0 || (strcmp(trigger_call, call) && strcmp(trigger_call, "*")) || !ends_with(path, trigger_suffix)) return;
    if (when == BEFORE) trigger_seen++;
    // A call that is no flush has no middle.
    int is_now = when == trigger_when || (when == AFTER && trigger_when == DURING && strcmp(call, "sync"));
    if (trigger_seen < trigger_n || !is_now) return;
    char text[PATH_MAX + 64];
    snprintf(text, sizeof text, "%s %ld %s", call, when, path);
    note(CRASH, text, 0, 0);
    syscall(SYS_exit_group, 86);
}

// Whether this call fails. With errno 0 it is a short write.
static int fails(const char *call, const char *path) {
    if (!fault_count || strcmp(fault_call, call) || !ends_with(path, fault_suffix)) return 0;
    if (only_while && syscall(SYS_faccessat, AT_FDCWD, only_while, F_OK, 0)) return 0;
    fault_seen++;
    if (fault_seen < fault_from || fault_seen >= fault_from + fault_count) return 0;
    note(FAULT, path, 0, fault_errno);
    errno = fault_errno;
    return 1;
}

static int unlocked(int result) {
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

// Notes what the bytes from `from` to `to` hold now. Bytes behind the end of the file are zeros and left out.
static void note_content(enum kind kind, int fd, const char *path, uint64_t from, uint64_t to) {
    struct stat status;
    if (fstat(fd, &status)) die("cannot look at a file");
    uint64_t size = status.st_size, end = to < size ? to : size, length = end > from ? end - from : 0;
    char *old = length ? malloc(length) : NULL;
    int reader = fd;
    if (length && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        char link[32];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        reader = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    }
    if (length && (!old || syscall(SYS_pread64, reader, old, length, from) != (long)length)) die("cannot read a file");
    if (reader != fd) syscall(SYS_close, reader);
    struct entry head = {.kind = kind, .path_len = strlen(path), .inode = status.st_ino, .offset = from,
                         .len = to - from, .size = size, .old_len = length};
    append(head, path, old);
    free(old);
}

static ssize_t write_at(int fd, const void *bytes, size_t length, off_t offset, int is_positioned) {
    char path[PATH_MAX];
    int is_kept = path_of(fd, path) && has_content(path);
    struct stat status;
    if (!is_kept || fstat(fd, &status) || !S_ISREG(status.st_mode))
        return is_positioned ? syscall(SYS_pwrite64, fd, bytes, length, offset) : syscall(SYS_write, fd, bytes, length);
    pthread_mutex_lock(&lock);
    if (fails("write", path)) {
        if (fault_errno) return unlocked(-1);
        // The caller writes the rest, which is short again until one byte is left.
        if (length > 1) length /= 2;
    }
    if (!is_positioned) offset = fcntl(fd, F_GETFL) & O_APPEND ? status.st_size : lseek(fd, 0, SEEK_CUR);
    point("write", path, BEFORE);
    note_content(WRITE, fd, path, offset, offset + length);
    ssize_t written = is_positioned ? syscall(SYS_pwrite64, fd, bytes, length, offset) : syscall(SYS_write, fd, bytes, length);
    point("write", path, AFTER);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) { return write_at(fd, bytes, length, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return write_at(fd, bytes, length, offset, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) { return write_at(fd, bytes, length, offset, 1); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    // A short write is allowed: the caller writes the rest.
    if (count && path_of(fd, path) && has_content(path)) return write_at(fd, parts[0].iov_base, parts[0].iov_len, 0, 0);
    return syscall(SYS_writev, fd, parts, count);
}

int ftruncate(int fd, off_t length) {
    char path[PATH_MAX];
    if (!path_of(fd, path) || !has_content(path)) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    if (fails("truncate", path)) return unlocked(-1);
    point("truncate", path, BEFORE);
    note_content(TRUNCATE, fd, path, length, UINT64_MAX);
    int result = syscall(SYS_ftruncate, fd, length);
    point("truncate", path, AFTER);
    return unlocked(result);
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

// How often a flush of this file failed, after this failure if it is one.
static uint64_t failures_of(uint64_t inode, int is_failure) {
    for (int i = 0; i < FAILED_MAX; i++) {
        if (failed[i].inode == inode) return failed[i].count += is_failure;
        if (failed[i].inode) continue;
        if (is_failure) failed[i].inode = inode, failed[i].count = 1;
        return is_failure;
    }
    die("too many files whose flush failed");
    return 0;
}

int fsync(int fd) {
    char path[PATH_MAX];
    struct stat status;
    if (!path_of(fd, path) || fstat(fd, &status)) return syscall(SYS_fsync, fd);
    int is_directory = S_ISDIR(status.st_mode);
    if (is_directory) strcat(path, "/");
    pthread_mutex_lock(&lock);
    point("sync", path, BEFORE);
    int is_failure = fails("sync", path);
    if (is_failure) note(SYNC_FAILED, path, status.st_ino, 0);
    uint64_t failures = failures_of(status.st_ino, is_failure);
    if (is_failure || (fd < FILES && failures_known[fd] != failures)) {
        if (fd < FILES) failures_known[fd] = failures;
        errno = fault_errno;
        return unlocked(-1);
    }
    uint64_t mine = ++token;
    note(SYNC_BEGIN, path, status.st_ino, mine);
    unsigned micros = sync_us ? rand_r(&seed) % sync_us : 0;
    pthread_mutex_unlock(&lock);
    if (micros) nanosleep(&(struct timespec){.tv_nsec = micros * 1000L}, NULL);
    pthread_mutex_lock(&lock);
    point("sync", path, DURING);
    if (!lie || !ends_with(path, lie)) note(SYNC_END, path, status.st_ino, mine);
    point("sync", path, AFTER);
    return unlocked(0);
}
int fdatasync(int fd) { return fsync(fd); }

static int open_at(int directory, const char *path, int flags, mode_t mode) {
    if (!is_inside(path) || flags & O_DIRECTORY) return syscall(SYS_openat, directory, path, flags, mode);
    pthread_mutex_lock(&lock);
    if (fails("open", path)) return unlocked(-1);
    int is_new = flags & O_CREAT && !inode_of(path);
    if (is_new) {
        point("create", path, BEFORE);
        note(CREATE, path, parent_of(path), 0);
    }
    int cuts = flags & O_TRUNC && !is_new && has_content(path);
    int fd = syscall(SYS_openat, directory, path, cuts ? flags & ~O_TRUNC : flags, mode);
    struct stat status;
    if (fd >= 0 && fd < FILES && !fstat(fd, &status)) failures_known[fd] = failures_of(status.st_ino, 0);
    if (is_new) point("create", path, AFTER);
    unlocked(fd);
    if (fd >= 0 && cuts && ftruncate(fd, 0)) return -1;
    return fd;
}

#define MODE(flags, mode)                  \
    mode_t mode = 0;                       \
    if (flags & (O_CREAT | O_TMPFILE)) {   \
        va_list rest;                      \
        va_start(rest, flags);             \
        mode = va_arg(rest, mode_t);       \
        va_end(rest);                      \
    }
int open(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode) return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode) return open_at(at, path, flags, mode); }

// Keeps a file that is about to lose its name. Returns the number that it is kept under, or 0 for what is no file.
static uint64_t keep(const char *path) {
    struct stat status;
    if (lstat(path, &status) || !S_ISREG(status.st_mode)) return 0;
    char kept[PATH_MAX];
    snprintf(kept, sizeof kept, "%s/%lu", stash, (unsigned long)++token);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, kept, 0)) die("cannot keep a removed file");
    return token;
}

int unlink(const char *path) {
    if (!is_inside(path)) return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&lock);
    if (fails("unlink", path)) return unlocked(-1);
    point("unlink", path, BEFORE);
    uint64_t kept = keep(path);
    if (kept) note(UNLINK, path, parent_of(path), kept);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    point("unlink", path, AFTER);
    return unlocked(result);
}

int rename(const char *from, const char *to) {
    if (!is_inside(to)) return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    pthread_mutex_lock(&lock);
    if (fails("rename", to)) return unlocked(-1);
    point("rename", to, BEFORE);
    uint64_t kept = keep(to);
    char both[2 * PATH_MAX];
    int length = snprintf(both, sizeof both, "%s%c%s", from, 0, to);
    struct entry head = {.kind = RENAME, .path_len = length, .inode = parent_of(to), .offset = kept};
    append(head, both, NULL);
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    point("rename", to, AFTER);
    return unlocked(result);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    if (!is_inside(to)) return syscall(SYS_linkat, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    point("create", to, BEFORE);
    note(CREATE, to, parent_of(to), 0);
    int result = syscall(SYS_linkat, from_at, from, to_at, to, flags);
    point("create", to, AFTER);
    return unlocked(result);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int mkdir(const char *path, mode_t mode) {
    if (!is_inside(path)) return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    pthread_mutex_lock(&lock);
    point("create", path, BEFORE);
    if (!inode_of(path)) note(CREATE, path, parent_of(path), 0);
    int result = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    point("create", path, AFTER);
    return unlocked(result);
}
