/*
 * The C half of tests/locks/test_interop.py: a program on libdlm that is told what to do.
 *
 *     partner LOCKSPACE
 *
 * Each line of standard input is one command; TAG is a number from 0 to 15 that names a lock, MODE
 * and FLAGS are libdlm's numbers, VALUE is a value block, 64 hexadecimal digits:
 *
 *     lock TAG NAME MODE FLAGS     convert TAG MODE FLAGS     unlock TAG FLAGS     value TAG VALUE
 *
 * `value` says what the next convert with VALBLK writes (not unlock: libdlm 4.2 leaves the value block
 * of that request as its stack happens to be). Each is answered by a line, `ok` or `refused ERRNO`;
 * `lock` also says the lock's id. Lines that come by themselves:
 *
 *     done TAG STATUS SBFLAGS VALUE     a completion
 *     blocking TAG                      a blocking notification (libdlm does not tell the mode)
 *
 * The end of standard input ends it without closing anything, as a process does that exits.
 * Compile: cc -D_REENTRANT partner.c -ldlm -lpthread
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <libdlm.h> /* needs mode_t */

#define LOCKS 16

struct lock {
	struct dlm_lksb lksb;
	char name[DLM_RESNAME_MAXLEN + 1];
	char value[DLM_LVB_LEN];
};

static struct lock locks[LOCKS];
static dlm_lshandle_t space;

static void completed(void *arg)
{
	struct lock *lock = arg;
	int i;

	printf("done %d %d %d ", (int)(lock - locks), lock->lksb.sb_status, lock->lksb.sb_flags);
	for (i = 0; i < DLM_LVB_LEN; i++)
		printf("%02x", (unsigned char)lock->value[i]);
	printf("\n");
}

static void blocking(void *arg)
{
	printf("blocking %d\n", (int)((struct lock *)arg - locks));
}

static void answer(int result)
{
	if (result)
		printf("refused %d\n", errno);
	else
		printf("ok\n");
}

static int request(struct lock *lock, int mode, int flags)
{
	return dlm_ls_lock(space, mode, &lock->lksb, flags, lock->name, strlen(lock->name), 0,
			   completed, lock, blocking, NULL);
}

static int set_value(struct lock *lock, const char *digits)
{
	unsigned int byte;
	int i;

	for (i = 0; i < DLM_LVB_LEN; i++) {
		if (sscanf(digits + 2 * i, "%2x", &byte) != 1) {
			errno = EINVAL;
			return -1;
		}
		lock->value[i] = byte;
	}
	return 0;
}

static void obey(const char *line)
{
	char name[DLM_RESNAME_MAXLEN + 1], digits[2 * DLM_LVB_LEN + 1];
	struct lock *lock;
	int tag, mode, flags;

	errno = EINVAL;
	if (sscanf(line, "%*s %d", &tag) != 1 || tag < 0 || tag >= LOCKS) {
		answer(-1);
		return;
	}
	lock = &locks[tag];
	if (sscanf(line, "lock %d %64s %d %d", &tag, name, &mode, &flags) == 4) {
		memset(lock, 0, sizeof *lock);
		strcpy(lock->name, name);
		lock->lksb.sb_lvbptr = lock->value;
		if (request(lock, mode, flags))
			answer(-1);
		else
			printf("ok %u\n", lock->lksb.sb_lkid);
	} else if (sscanf(line, "convert %d %d %d", &tag, &mode, &flags) == 3) {
		answer(request(lock, mode, flags | LKF_CONVERT));
	} else if (sscanf(line, "unlock %d %d", &tag, &flags) == 2) {
		answer(dlm_ls_unlock(space, lock->lksb.sb_lkid, flags, &lock->lksb, lock));
	} else if (sscanf(line, "value %d %64s", &tag, digits) == 2) {
		answer(set_value(lock, digits));
	} else {
		answer(-1);
	}
}

/* Take whole lines from standard input; say whether it goes on. */
static int take_lines(void)
{
	static char text[4096];
	static size_t length;
	char *end;
	ssize_t got = read(0, text + length, sizeof text - 1 - length);

	if (got <= 0)
		return 0;
	length += got;
	text[length] = '\0';
	while ((end = strchr(text, '\n'))) {
		*end++ = '\0';
		obey(text);
		length -= end - text;
		memmove(text, end, length + 1);
	}
	return 1;
}

int main(int argc, char **argv)
{
	struct pollfd files[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };

	if (argc != 2 || !(space = dlm_open_lockspace(argv[1]))) {
		fprintf(stderr, "partner: %s\n", argc == 2 ? strerror(errno) : "LOCKSPACE");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	files[1].fd = dlm_ls_get_fd(space);
	for (;;) {
		if (poll(files, 2, -1) < 0)
			return 1;
		if (files[1].revents)
			dlm_dispatch(files[1].fd);
		if (files[0].revents && !take_lines())
			return 0;
	}
}
