// SPDX-License-Identifier: GPL-2.0
/*
 * A live patch of lab_hold: its transition waits for every task that reads /proc/lab_hold. Patched, reading does not
 * block. It is not cumulative: it is enabled beside others.
 */
#include <linux/livepatch.h>
#include <linux/module.h>

static int lab_fixed_hold_wait(void)
{
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "lab_hold_wait", .new_func = lab_fixed_hold_wait },
	{ }
};

static struct klp_object objs[] = {
	{ .name = "lab_hold", .funcs = funcs },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int __init lab_fix_hold_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit lab_fix_hold_exit(void)
{
}

module_init(lab_fix_hold_init);
module_exit(lab_fix_hold_exit);
MODULE_DESCRIPTION("Live patch of the lab that has to wait");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
