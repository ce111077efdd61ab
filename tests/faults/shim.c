/* Preloaded into a program that is to be broken (LD_PRELOAD). Each part is on if its variable is set.

   FAULT_COUNT=FILE   a byte in FILE for each operation of the run itself, not of its children, on the tree of files
   FAULT_KILL_AT=N    kill -9 in place of the N-th such operation
   FAULT_SLOW=MS      a slow disk: each fsync, and each write of a page or more to a file, waits so long
   FAULT_JUMP=S       a clock that jumps S seconds forward, then as much back, and so on, four times a second */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) static __typeof__(&name) next; if (!next) next = dlsym(RTLD_NEXT, #name)

static long value_of(const char *name) {
    const char *given = getenv(name);
    return given ? atol(given) : 0;
}

static void operation(void) {
    static long done;
    long at = value_of("FAULT_KILL_AT");
    const char *count = getenv("FAULT_COUNT");
    if ((!at && !count) || getsid(0) != getpid()) return;
    if (at && __sync_add_and_fetch(&done, 1) == at) kill(getpid(), SIGKILL);
    if (count) {
        int file = open(count, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (write(file, ".", 1) != 1) abort();
        close(file);
    }
}

static void slowly(void) {
    long wait = value_of("FAULT_SLOW");
    if (wait) usleep(wait * 1000);
}

int rename(const char *from, const char *to) { NEXT(rename); operation(); return next(from, to); }
int unlink(const char *path) { NEXT(unlink); operation(); return next(path); }
int unlinkat(int folder, const char *path, int flags) { NEXT(unlinkat); operation(); return next(folder, path, flags); }
int rmdir(const char *path) { NEXT(rmdir); operation(); return next(path); }
int mkdir(const char *path, mode_t mode) { NEXT(mkdir); operation(); return next(path, mode); }
int fsync(int file) { NEXT(fsync); operation(); slowly(); return next(file); }

ssize_t write(int file, const void *bytes, size_t size) {
    NEXT(write);
    struct stat found;
    if (size >= 4096 && value_of("FAULT_SLOW") && !fstat(file, &found) && S_ISREG(found.st_mode)) slowly();
    return next(file, bytes, size);
}

static time_t jumped(void) {
    struct timespec now;
    long jump = value_of("FAULT_JUMP");
    if (!jump) return 0;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now.tv_nsec / 250000000 % 2 ? jump : -jump;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += jumped();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *there) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (there) *there = now.tv_sec;
    return now.tv_sec;
}
