// SPDX-License-Identifier: GPL-2.0
/* A module like most: no live patch. */
#include <linux/module.h>

MODULE_DESCRIPTION("Plain module of the lab");
MODULE_LICENSE("GPL");
