/*
 * The lock device, interface version 6.0.2 (Linux 2.6.25 to 7.2), as the machine's own programs
 * see it. Facts from include/uapi/linux/dlm.h and dlm_device.h.
 *
 * A write to dlm-control or dlm_<lockspace> is one struct dlm_write_request with its name behind
 * it; a read is one struct dlm_lock_result, with the value block at lvb_offset where one is due.
 */
#pragma once
#include <stdint.h>
#include "dlm_constants.h"

#define DLM_DEVICE_VERSION_MAJOR 6
#define DLM_DEVICE_VERSION_MINOR 0
#define DLM_DEVICE_VERSION_PATCH 2

/* cmd */
#define DLM_USER_LOCK 1
#define DLM_USER_UNLOCK 2
#define DLM_USER_QUERY 3
#define DLM_USER_CREATE_LOCKSPACE 4
#define DLM_USER_REMOVE_LOCKSPACE 5
#define DLM_USER_PURGE 6
#define DLM_USER_DEADLOCK 7

/* flags of DLM_USER_REMOVE_LOCKSPACE */
#define DLM_USER_LSFLG_AUTOFREE 1
#define DLM_USER_LSFLG_FORCEFREE 2

struct dlm_lksb {
	int32_t sb_status;
	uint32_t sb_lkid;
	uint8_t sb_flags;
	void *sb_lvbptr;
};

struct dlm_lock_params {
	uint8_t mode;
	uint8_t namelen;
	uint16_t unused;
	uint32_t flags;
	uint32_t lkid;
	uint32_t parent;
	uint64_t xid;
	uint64_t timeout;
	void *castparam;
	void *castaddr;
	void *bastparam;
	void *bastaddr;
	void *lksb;
	char lvb[DLM_USER_LVB_LEN];
	char name[];
};

struct dlm_lspace_params {
	uint32_t flags;
	uint32_t minor;
	char name[];
};

struct dlm_purge_params {
	uint32_t nodeid;
	uint32_t pid;
};

struct dlm_write_request {
	uint32_t version[3];
	uint8_t cmd;
	uint8_t is64bit;
	uint8_t unused[2];
	union {
		struct dlm_lock_params lock;
		struct dlm_lspace_params lspace;
		struct dlm_purge_params purge;
	} i;
};

struct dlm_device_version {
	uint32_t version[3];
};

struct dlm_lock_result {
	uint32_t version[3];
	uint32_t length;
	void *user_astaddr;
	void *user_astparam;
	void *user_lksb;
	struct dlm_lksb lksb;
	uint8_t bast_mode;
	uint8_t unused[3];
	uint32_t lvb_offset;
};
