// Loaded by LD_PRELOAD: the wall clock of this process is off by the number of
// milliseconds in the file that WEBHOOKS_CLOCK_FILE names, which may change at
// any time. The monotonic clock is left alone.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef int (*gettime_function)(clockid_t, struct timespec *);

static const int64_t kNone = 0;
static const volatile int64_t *offset_ms = &kNone;
static gettime_function real_gettime;

static gettime_function real(void) {
  if (real_gettime == NULL)
    real_gettime = (gettime_function)dlsym(RTLD_NEXT, "clock_gettime");
  return real_gettime;
}

__attribute__((constructor)) static void open_clock(void) {
  const char *path = getenv("WEBHOOKS_CLOCK_FILE");
  int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) offset_ms = mapped;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = real()(clock, now);
  if (result != 0 ||
      (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
    return result;
  int64_t offset = *offset_ms;
  int64_t ns = now->tv_nsec + offset % 1000 * 1000000;
  now->tv_sec += offset / 1000;
  if (ns < 0) {
    ns += 1000000000;
    now->tv_sec -= 1;
  } else if (ns >= 1000000000) {
    ns -= 1000000000;
    now->tv_sec += 1;
  }
  now->tv_nsec = ns;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec exact;
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return (time_t)-1;
  if (now != NULL) *now = exact.tv_sec;
  return exact.tv_sec;
}
