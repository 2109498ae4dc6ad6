/* A wall clock that can be set, for a Python process: what a file holds, in seconds, is added to what the machine's clock says.
 *
 * Only Python and gRPC are told so, which compare moments with each other. What hands a moment to the kernel would wait for hours,
 * as it does not when a real clock is set: the kernel knows nothing of this one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int counts(void *caller)
{
    Dl_info place;
    if (!dladdr(caller, &place) || !place.dli_fname)
        return 0;
    const char *name = strrchr(place.dli_fname, '/');
    name = name ? name + 1 : place.dli_fname;
    return !strncmp(name, "python", 6) || !strncmp(name, "libpython", 9) || !strncmp(name, "cygrpc", 6);
}

static time_t ahead(void)
{
    char text[32] = "0";
    const char *path = getenv("CLOCK_AHEAD_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    if (read(file, text, sizeof text - 1) < 0)
        text[0] = '0';
    close(file);
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (!result && clock == CLOCK_REALTIME && counts(__builtin_return_address(0)))
        now->tv_sec += ahead();
    return result;
}
