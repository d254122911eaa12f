/*
 * Constants of the DLM's user-space interface, equal in Linux 5.10 to 7.2.
 * Facts from include/uapi/linux/dlmconstants.h, dlm.h and dlm_device.h.
 */
#pragma once

/* lengths */
#define DLM_LOCKSPACE_LEN 64
#define DLM_RESNAME_MAXLEN 64
#define DLM_USER_LVB_LEN 32

/* lock modes */
#define DLM_LOCK_IV -1
#define DLM_LOCK_NL 0
#define DLM_LOCK_CR 1
#define DLM_LOCK_CW 2
#define DLM_LOCK_PR 3
#define DLM_LOCK_PW 4
#define DLM_LOCK_EX 5

/* what a request asks for */
#define DLM_LKF_NOQUEUE 0x00001
#define DLM_LKF_CANCEL 0x00002
#define DLM_LKF_CONVERT 0x00004
#define DLM_LKF_VALBLK 0x00008
#define DLM_LKF_QUECVT 0x00010
#define DLM_LKF_IVVALBLK 0x00020
#define DLM_LKF_CONVDEADLK 0x00040
#define DLM_LKF_PERSISTENT 0x00080
#define DLM_LKF_NODLCKWT 0x00100
#define DLM_LKF_NODLCKBLK 0x00200
#define DLM_LKF_EXPEDITE 0x00400
#define DLM_LKF_NOQUEUEBAST 0x00800
#define DLM_LKF_HEADQUE 0x01000
#define DLM_LKF_NOORDER 0x02000
#define DLM_LKF_ORPHAN 0x04000
#define DLM_LKF_ALTPR 0x08000
#define DLM_LKF_ALTCW 0x10000
#define DLM_LKF_FORCEUNLOCK 0x20000
#define DLM_LKF_TIMEOUT 0x40000

/* remarks in a lock status block */
#define DLM_SBF_DEMOTED 0x01
#define DLM_SBF_VALNOTVALID 0x02
#define DLM_SBF_ALTMODE 0x04

/* statuses that are no errno */
#define DLM_ECANCEL 0x10001
#define DLM_EUNLOCK 0x10002

/* flags of a new lockspace */
#define DLM_LSFL_TIMEWARN 0x2
#define DLM_LSFL_NEWEXCL 0x8
