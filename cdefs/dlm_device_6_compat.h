/*
 * The lock device, interface version 6.0.2, as a 64-bit kernel reads and writes it for 32-bit
 * programs. Facts from fs/dlm/user.c (Linux 6.1), under CONFIG_COMPAT.
 *
 * Quirk: the 64-bit kernel aligns the 64-bit fields to 8 bytes, so a request is 104 bytes long
 * although its name begins at 100; a real i386 program makes it 100 bytes long.
 */
#pragma once
#include "dlm_device_6.h"

struct dlm_lock_params32 {
	uint8_t mode;
	uint8_t namelen;
	uint16_t unused;
	uint32_t flags;
	uint32_t lkid;
	uint32_t parent;
	uint64_t xid;
	uint64_t timeout;
	uint32_t castparam;
	uint32_t castaddr;
	uint32_t bastparam;
	uint32_t bastaddr;
	uint32_t lksb;
	char lvb[DLM_USER_LVB_LEN];
	char name[];
};

struct dlm_write_request32 {
	uint32_t version[3];
	uint8_t cmd;
	uint8_t is64bit;
	uint8_t unused[2];
	union {
		struct dlm_lock_params32 lock;
		struct dlm_lspace_params lspace;
		struct dlm_purge_params purge;
	} i;
};

struct dlm_lksb32 {
	int32_t sb_status; /* unsigned in the kernel's source, read as an int by every program */
	uint32_t sb_lkid;
	uint8_t sb_flags;
	uint32_t sb_lvbptr;
};

struct dlm_lock_result32 {
	uint32_t version[3];
	uint32_t length;
	uint32_t user_astaddr;
	uint32_t user_astparam;
	uint32_t user_lksb;
	struct dlm_lksb32 lksb;
	uint8_t bast_mode;
	uint8_t unused[3];
	uint32_t lvb_offset;
};
