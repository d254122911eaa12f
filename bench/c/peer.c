/*
 * The peer of bench/locks.py: what a C program on libdlm needs for the same work.
 *
 *     peer LOCKSPACE MEASURE COUNT
 *
 * opens a lockspace that runs, does the work COUNT times and prints one number, the nanoseconds of
 * one time. MEASURE:
 *
 *     wait       dlm_ls_lock_wait and dlm_ls_unlock_wait with libdlm's own thread; one resource, EX
 *     hand       the same with dlm_ls_lock, poll and dlm_dispatch, and no thread
 *     pipeline   COUNT locks on as many resources in flight, then COUNT unlocks in flight
 *     convert    one held lock, NL to EX and back, by dlm_ls_lock_wait; one time is one conversion
 *
 * Compile: cc -O2 -D_REENTRANT peer.c -ldlm -lpthread
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include <libdlm.h> /* needs mode_t */

static const char NAME[] = "bench";
static dlm_lshandle_t space;
static int completions;

static void die(const char *what)
{
	fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void completed(void *arg)
{
	(void)arg;
	completions++;
}

static void blocking(void *arg)
{
	(void)arg;
}

/* Dispatch until so many completions have come. */
static void collect(int expected)
{
	struct pollfd file = { .fd = dlm_ls_get_fd(space), .events = POLLIN };

	while (completions < expected) {
		if (poll(&file, 1, -1) < 0)
			die("poll");
		if (dlm_dispatch(file.fd) < 0 && errno != EAGAIN)
			die("dlm_dispatch");
	}
	completions -= expected;
}

static void expect(const struct dlm_lksb *lksb, int status, const char *what)
{
	if (lksb->sb_status == status)
		return;
	errno = lksb->sb_status;
	die(what);
}

static void by_waiting(int count)
{
	struct dlm_lksb lksb;

	while (count--) {
		memset(&lksb, 0, sizeof lksb);
		if (dlm_ls_lock_wait(space, LKM_EXMODE, &lksb, 0, NAME, strlen(NAME), 0, &lksb,
				     blocking, NULL))
			die("dlm_ls_lock_wait");
		expect(&lksb, 0, "lock");
		if (dlm_ls_unlock_wait(space, lksb.sb_lkid, 0, &lksb))
			die("dlm_ls_unlock_wait");
		expect(&lksb, EUNLOCK, "unlock");
	}
}

static void by_hand(int count)
{
	struct dlm_lksb lksb;

	while (count--) {
		memset(&lksb, 0, sizeof lksb);
		if (dlm_ls_lock(space, LKM_EXMODE, &lksb, 0, NAME, strlen(NAME), 0, completed,
				&lksb, blocking, NULL))
			die("dlm_ls_lock");
		collect(1);
		expect(&lksb, 0, "lock");
		if (dlm_ls_unlock(space, lksb.sb_lkid, 0, &lksb, &lksb))
			die("dlm_ls_unlock");
		collect(1);
		expect(&lksb, EUNLOCK, "unlock");
	}
}

static void pipelined(int count)
{
	struct dlm_lksb *lksb = calloc(count, sizeof *lksb);
	char name[32];
	int i;

	if (!lksb)
		die("calloc");
	for (i = 0; i < count; i++) {
		int length = snprintf(name, sizeof name, "%s%d", NAME, i);

		if (dlm_ls_lock(space, LKM_EXMODE, &lksb[i], 0, name, length, 0, completed,
				&lksb[i], blocking, NULL))
			die("dlm_ls_lock");
	}
	collect(count);
	for (i = 0; i < count; i++) {
		expect(&lksb[i], 0, "lock");
		if (dlm_ls_unlock(space, lksb[i].sb_lkid, 0, &lksb[i], &lksb[i]))
			die("dlm_ls_unlock");
	}
	collect(count);
	for (i = 0; i < count; i++)
		expect(&lksb[i], EUNLOCK, "unlock");
	free(lksb);
}

static void converting(struct dlm_lksb *lksb, int count)
{
	int i;

	for (i = 0; i < count; i++) {
		int mode = i % 2 ? LKM_NLMODE : LKM_EXMODE;

		if (dlm_ls_lock_wait(space, mode, lksb, LKF_CONVERT, NAME, strlen(NAME), 0, lksb,
				     blocking, NULL))
			die("dlm_ls_lock_wait CONVERT");
		expect(lksb, 0, "convert");
	}
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

int main(int argc, char **argv)
{
	struct dlm_lksb held = { 0 };
	const char *measure;
	int64_t begin, end;
	int count;

	if (argc != 4 || (count = atoi(argv[3])) < 1) {
		fprintf(stderr, "usage: peer LOCKSPACE wait|hand|pipeline|convert COUNT\n");
		return 2;
	}
	measure = argv[2];
	space = dlm_open_lockspace(argv[1]);
	if (!space)
		die(argv[1]);
	if ((!strcmp(measure, "wait") || !strcmp(measure, "convert")) &&
	    dlm_ls_pthread_init(space))
		die("dlm_ls_pthread_init");
	if (!strcmp(measure, "convert")) {
		if (dlm_ls_lock_wait(space, LKM_NLMODE, &held, 0, NAME, strlen(NAME), 0, &held,
				     blocking, NULL))
			die("dlm_ls_lock_wait");
		expect(&held, 0, "lock");
	}

	begin = now();
	if (!strcmp(measure, "wait"))
		by_waiting(count);
	else if (!strcmp(measure, "hand"))
		by_hand(count);
	else if (!strcmp(measure, "pipeline"))
		pipelined(count);
	else if (!strcmp(measure, "convert"))
		converting(&held, count);
	else
		count = 0;
	end = now();

	if (!count) {
		fprintf(stderr, "peer: no measure %s\n", measure);
		return 2;
	}
	printf("%.0f\n", (double)(end - begin) / count);
	dlm_close_lockspace(space);
	return 0;
}
