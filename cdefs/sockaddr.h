/*
 * A node's address as config/dlm/<cluster>/comms/<comm>/addr takes it: the 128 bytes of a
 * struct sockaddr_storage. Facts from include/uapi/linux/{socket,in,in6}.h.
 *
 * The names carry "dlm_" because libc's headers hold the same structs under their own names.
 */
#pragma once
#include <stdint.h>

#define DLM_AF_INET 2
#define DLM_AF_INET6 10

struct dlm_sockaddr_in {
	uint16_t sin_family;
	uint16_t sin_port; /* network order; the DLM does not look at it */
	uint8_t sin_addr[4];
	uint8_t sin_zero[8];
};

struct dlm_sockaddr_in6 {
	uint16_t sin6_family;
	uint16_t sin6_port; /* network order; the DLM does not look at it */
	uint32_t sin6_flowinfo;
	uint8_t sin6_addr[16];
	uint32_t sin6_scope_id;
};

union dlm_sockaddr_storage {
	uint16_t ss_family;
	struct dlm_sockaddr_in in;
	struct dlm_sockaddr_in6 in6;
	uint64_t ss_align;
	uint8_t ss_bytes[128];
};
