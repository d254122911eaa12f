/*
 * The node and address device dlm-node, interface version 1.0.0 (spring to August 2005). The layout
 * is equal for 32-bit and 64-bit programs. Facts from the linux-kernel postings of 25 April and
 * 15 July 2005.
 *
 * The address is a sockaddr; the kernel takes its first 128 bytes.
 */
#pragma once
#include <stdint.h>

#define DLM_NODE_VERSION_MAJOR 1
#define DLM_NODE_VERSION_MINOR 0
#define DLM_NODE_VERSION_PATCH 0

#define DLM_NODE_ADDR_LEN 256
#define DLM_NODE_MAX_ADDR_COUNT 3

/* ioctl requests: _IOWR(0xd1, 0 ... 2, struct dlm_node_ioctl) */
#define DLM_NODE_VERSION 0xC114D100
#define DLM_SET_NODE 0xC114D101
#define DLM_SET_LOCAL 0xC114D102

struct dlm_node_ioctl {
	uint32_t version[3];
	int32_t nodeid;
	int32_t weight;
	char addr[DLM_NODE_ADDR_LEN];
};
