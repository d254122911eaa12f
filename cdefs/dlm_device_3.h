/*
 * The lock device, interface version 3.0.0 (2005), as the machine's own programs see it. Facts from
 * the linux-kernel postings of 25 April 2005 and the cluster source tree of that year.
 *
 * Other interface versions use the same names, so that these carry a 3. The header of the older
 * "cluster 1" is numbered 3.0.0, too, and has another result (88 bytes): it is not meant here.
 */
#pragma once
#include "dlm_constants.h"
#include "dlm_device_6.h"

#define DLM_DEVICE3_VERSION_MAJOR 3
#define DLM_DEVICE3_VERSION_MINOR 0
#define DLM_DEVICE3_VERSION_PATCH 0

struct dlm_range3 {
	uint64_t ra_start;
	uint64_t ra_end;
};

struct dlm_lock_params3 {
	uint8_t mode;
	uint16_t flags;
	uint32_t lkid;
	uint32_t parent;
	struct dlm_range3 range;
	uint8_t namelen;
	void *castparam;
	void *castaddr;
	void *bastparam;
	void *bastaddr;
	void *lksb;
	char lvb[DLM_USER_LVB_LEN];
	char name[1];
};

struct dlm_lspace_params3 {
	uint32_t flags;
	uint32_t minor;
	char name[1];
};

struct dlm_write_request3 {
	uint32_t version[3];
	uint8_t cmd;
	union {
		struct dlm_lock_params3 lock;
		struct dlm_lspace_params3 lspace;
	} i;
};

struct dlm_lock_result3 {
	uint32_t length;
	void *user_astaddr;
	void *user_astparam;
	void *user_lksb;
	struct dlm_lksb lksb;
	uint8_t bast_mode;
	uint32_t lvb_offset;
};
