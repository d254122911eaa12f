/*
 * The lock device, interface version 3.0.0, as a program on i386 sees it: pointers of 4 bytes, and
 * 64-bit numbers aligned to 4 (halves, low one first, stand for them here, so that every compiler
 * gives the same layout). Only an i386 kernel takes it: the device of 2005 has no compat layer.
 */
#pragma once
#include "dlm_device_3.h"
#include "dlm_device_6_compat.h"

struct dlm_range3_i386 {
	uint32_t ra_start[2];
	uint32_t ra_end[2];
};

struct dlm_lock_params3_i386 {
	uint8_t mode;
	uint16_t flags;
	uint32_t lkid;
	uint32_t parent;
	struct dlm_range3_i386 range;
	uint8_t namelen;
	uint32_t castparam;
	uint32_t castaddr;
	uint32_t bastparam;
	uint32_t bastaddr;
	uint32_t lksb;
	char lvb[DLM_USER_LVB_LEN];
	char name[1];
};

struct dlm_write_request3_i386 {
	uint32_t version[3];
	uint8_t cmd;
	union {
		struct dlm_lock_params3_i386 lock;
		struct dlm_lspace_params3 lspace;
	} i;
};

struct dlm_lock_result3_i386 {
	uint32_t length;
	uint32_t user_astaddr;
	uint32_t user_astparam;
	uint32_t user_lksb;
	struct dlm_lksb32 lksb;
	uint8_t bast_mode;
	uint32_t lvb_offset;
};
