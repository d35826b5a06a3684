// SPDX-License-Identifier: GPL-2.0
/*
 * A live patch with a visible effect: /proc/version ends with "lab fix N". It is cumulative, so a later one replaces an
 * earlier one.
 *
 * LAB_FIX is N. With LAB_FAILS the module refuses to be loaded. LAB_MORE are more objects that it patches.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/utsname.h>

#ifndef LAB_MORE
#define LAB_MORE
#endif

static int lab_version_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s version %s %s, lab fix %d\n", utsname()->sysname,
		   utsname()->release, utsname()->version, LAB_FIX);
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "version_proc_show", .new_func = lab_version_proc_show },
	{ }
};

/* No name: the kernel itself. */
static struct klp_object objs[] = {
	{ .funcs = funcs },
	LAB_MORE
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.replace = true,
};

static int __init lab_fix_init(void)
{
#ifdef LAB_FAILS
	return -ENODEV;
#endif
	return klp_enable_patch(&patch);
}

static void __exit lab_fix_exit(void)
{
}

module_init(lab_fix_init);
module_exit(lab_fix_exit);
MODULE_DESCRIPTION("Live patch of the lab");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
