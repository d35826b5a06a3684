// SPDX-License-Identifier: GPL-2.0
/*
 * Reading /proc/lab_hold blocks until something is written to it. The reader sleeps in lab_hold_wait(), and only a fatal
 * signal wakes it: the fake signals with which the kernel speeds up a live patch do not.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(held);
static unsigned int releases;

/* On the stack of every reader, and what lab_fix_hold patches. */
static noinline int lab_hold_wait(void)
{
	unsigned int before = READ_ONCE(releases);
	int err = wait_event_killable(held, READ_ONCE(releases) != before);

	barrier(); /* no tail call: this frame has to stay */
	return err;
}

static ssize_t lab_hold_read(struct file *file, char __user *buf, size_t size, loff_t *pos)
{
	static const char text[] = "released\n";
	int err;

	if (*pos)
		return 0;
	err = lab_hold_wait();
	if (err)
		return err;
	return simple_read_from_buffer(buf, size, pos, text, sizeof(text) - 1);
}

static ssize_t lab_hold_write(struct file *file, const char __user *buf, size_t size, loff_t *pos)
{
	WRITE_ONCE(releases, releases + 1);
	wake_up_all(&held);
	return size;
}

static const struct proc_ops ops = {
	.proc_read = lab_hold_read,
	.proc_write = lab_hold_write,
};

static int __init lab_hold_init(void)
{
	return proc_create("lab_hold", 0600, NULL, &ops) ? 0 : -ENOMEM;
}

static void __exit lab_hold_exit(void)
{
	remove_proc_entry("lab_hold", NULL);
}

module_init(lab_hold_init);
module_exit(lab_hold_exit);
MODULE_DESCRIPTION("Holds tasks of the lab in the kernel");
MODULE_LICENSE("GPL");
