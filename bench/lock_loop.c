/* The peer of bench/lock_loop.py: lock and unlock one resource through libdlm, N times.
 *
 *     cc -O2 lock_loop.c -ldlm_lt && ./a.out LOCKSPACE LOOPS
 *
 * Prints the microseconds of one loop. The lockspace must run.
 */
#include <sys/types.h>

#include <libdlm.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int done;

static void completed(void *argument)
{
	(void)argument;
	done = 1;
}

static void wait_for_completion(int descriptor)
{
	while (!done)
		dlm_dispatch(descriptor);
	done = 0;
}

int main(int argc, char **argv)
{
	struct dlm_lksb lksb = {0};
	struct timespec begin, end;
	dlm_lshandle_t lockspace;
	int descriptor;
	long loops;

	if (argc != 3)
		return 2;
	loops = atol(argv[2]);
	lockspace = dlm_open_lockspace(argv[1]);
	if (!lockspace) {
		perror(argv[1]);
		return 1;
	}
	descriptor = dlm_ls_get_fd(lockspace);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long loop = 0; loop < loops; loop++) {
		if (dlm_ls_lock(lockspace, LKM_EXMODE, &lksb, 0, "bench", 5, 0, completed, 0, 0, 0))
			return 1;
		wait_for_completion(descriptor);
		if (lksb.sb_status)
			return 1;
		if (dlm_ls_unlock(lockspace, lksb.sb_lkid, 0, &lksb, 0))
			return 1;
		wait_for_completion(descriptor);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%f\n", ((end.tv_sec - begin.tv_sec) * 1e6 + (end.tv_nsec - begin.tv_nsec) / 1e3) / loops);
	return 0;
}
