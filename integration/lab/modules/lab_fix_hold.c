// SPDX-License-Identifier: GPL-2.0
/*
 * What lab_fix is, and a live patch of lab_hold: its transition waits for every task that reads /proc/lab_hold. Patched,
 * reading does not block.
 */
#include <linux/livepatch.h>

static int lab_fixed_hold_wait(void)
{
	return 0;
}

static struct klp_func hold_funcs[] = {
	{ .old_name = "lab_hold_wait", .new_func = lab_fixed_hold_wait },
	{ }
};

#define LAB_MORE { .name = "lab_hold", .funcs = hold_funcs },

#include "lab_fix.c"
