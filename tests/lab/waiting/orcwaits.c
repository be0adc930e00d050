// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that wait for each other and for nothing, for the lab of orcdbg. Each says in the kernel's log what it is about to
 * wait for, and who has that: `orcwaits: edge NAME WAITER KIND OBJECT HOLDER CERTAINTY`, a holder of 0 where nobody has it or
 * where the kernel keeps no record. What it `holds` without waiters is not said. There is no way to unload it.
 */

#include <linux/bitops.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/rtmutex.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/semaphore.h>
#include <linux/srcu.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>

#define SAY(key, format, ...) printk(KERN_INFO "orcwaits: " key " " format "\n", ##__VA_ARGS__)
#define EDGE(kind, object, holder, certainty) \
	SAY("edge", "%s %px " kind " %px %px " certainty, current->comm, current, object, holder)

static DEFINE_MUTEX(mutex_a);
static DEFINE_MUTEX(mutex_b);
static DEFINE_MUTEX(mutex_self);
static DEFINE_MUTEX(mutex_flush);
static DECLARE_RWSEM(rwsem_x);
static DECLARE_RWSEM(rwsem_y);
static DECLARE_RWSEM(rwsem_read);
static DECLARE_COMPLETION(never);
static DEFINE_RT_MUTEX(rt_mutex);
static struct semaphore twice;
static DECLARE_WAIT_QUEUE_HEAD(queue);
static unsigned long word = 1UL << 3;
static unsigned int variable;
static struct page *locked_page, *written_page;
static struct work_struct work;
static struct workqueue_struct *works;
DEFINE_STATIC_SRCU(srcu);

enum who {
	MUTEX_AB, MUTEX_BA, MUTEX_THIRD, MUTEX_SELF,
	RWSEM_XY, RWSEM_YX, RWSEM_READER, RWSEM_WRITER,
	SEMAPHORE, COMPLETION, STOPPER, STOPPED, FLUSHER, QUEUE,
	BIT, VARIABLE, RT_HOLDER, RT_WAITER, FOLIO, WRITEBACK, SRCU_READER, SRCU_WAITER, COUNT
};

static struct task_struct *tasks[COUNT];

/* All take what is free first; then each waits. */
static void others_first(void)
{
	msleep(300);
}

static int ab(void *unused)
{
	mutex_lock(&mutex_a);
	others_first();
	EDGE("mutex", &mutex_b, tasks[MUTEX_BA], "fact");
	mutex_lock(&mutex_b);
	return 0;
}

static int ba(void *unused)
{
	mutex_lock(&mutex_b);
	others_first();
	EDGE("mutex", &mutex_a, tasks[MUTEX_AB], "fact");
	mutex_lock(&mutex_a);
	return 0;
}

static int third(void *unused)
{
	others_first();
	others_first();
	EDGE("mutex", &mutex_a, tasks[MUTEX_AB], "fact");
	return mutex_lock_interruptible(&mutex_a);
}

static int itself(void *unused)
{
	mutex_lock(&mutex_self);
	EDGE("mutex", &mutex_self, current, "fact");
	mutex_lock(&mutex_self);
	return 0;
}

static int xy(void *unused)
{
	down_write(&rwsem_x);
	others_first();
	EDGE("rwsem", &rwsem_y, tasks[RWSEM_YX], "fact");
	down_write(&rwsem_y);
	return 0;
}

static int yx(void *unused)
{
	down_write(&rwsem_y);
	others_first();
	EDGE("rwsem", &rwsem_x, tasks[RWSEM_XY], "fact");
	down_read(&rwsem_x);
	return 0;
}

static int reader(void *unused)
{
	down_read(&rwsem_read);
	others_first();
	EDGE("completion", &never, NULL, "fact");
	wait_for_completion(&never);
	return 0;
}

static int writer(void *unused)
{
	others_first();
	EDGE("rwsem", &rwsem_read, tasks[RWSEM_READER], "hypothesis");
	down_write(&rwsem_read);
	return 0;
}

static int down_twice(void *unused)
{
	down(&twice);
	EDGE("semaphore", &twice, NULL, "fact");
	down(&twice);
	return 0;
}

static int waits(void *unused)
{
	EDGE("completion", &never, NULL, "fact");
	wait_for_completion(&never);
	return 0;
}

static int stops(void *unused)
{
	others_first();
	EDGE("kthread-stop", NULL, tasks[STOPPED], "derived");
	kthread_stop(tasks[STOPPED]);
	return 0;
}

static void blocks(struct work_struct *unused)
{
	SAY("worker", "%px", current);
	EDGE("mutex", &mutex_flush, tasks[FLUSHER], "fact");
	mutex_lock(&mutex_flush);
}

static int flushes(void *unused)
{
	mutex_lock(&mutex_flush);
	queue_work(works, &work);
	others_first();
	EDGE("flush-work", &work, NULL, "worker");
	flush_work(&work);
	return 0;
}

static int queues(void *unused)
{
	EDGE("wait-queue", &queue, NULL, "fact");
	wait_event(queue, READ_ONCE(variable));
	return 0;
}

static int bit(void *unused)
{
	EDGE("bit", &word, NULL, "fact");
	wait_on_bit(&word, 3, TASK_UNINTERRUPTIBLE);
	return 0;
}

static int on_variable(void *unused)
{
	EDGE("variable", &variable, NULL, "fact");
	wait_var_event(&variable, READ_ONCE(variable));
	return 0;
}

static int rt_holder(void *unused)
{
	rt_mutex_lock(&rt_mutex);
	EDGE("completion", &never, NULL, "fact");
	wait_for_completion(&never);
	return 0;
}

static int rt_waiter(void *unused)
{
	others_first();
	EDGE("rt-mutex", &rt_mutex, tasks[RT_HOLDER], "fact");
	rt_mutex_lock(&rt_mutex);
	return 0;
}

static int folio(void *unused)
{
	EDGE("folio-lock", locked_page, NULL, "fact");
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0)
	folio_lock(page_folio(locked_page));
#else
	lock_page(locked_page);
#endif
	return 0;
}

static int writeback(void *unused)
{
	EDGE("writeback", written_page, NULL, "fact");
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0)
	folio_wait_writeback(page_folio(written_page));
#else
	wait_on_page_writeback(written_page);
#endif
	return 0;
}

static int srcu_reader(void *unused)
{
	int index = srcu_read_lock(&srcu);

	EDGE("completion", &never, NULL, "fact");
	wait_for_completion(&never);
	srcu_read_unlock(&srcu, index);
	return 0;
}

static int srcu_waiter(void *unused)
{
	others_first();
	EDGE("rcu", NULL, NULL, "fact");
	synchronize_srcu(&srcu);
	return 0;
}

static const struct {
	int (*function)(void *unused);
	const char *name;
} threads[COUNT] = {
	[MUTEX_AB] = { ab, "w-ab" },
	[MUTEX_BA] = { ba, "w-ba" },
	[MUTEX_THIRD] = { third, "w-third" },
	[MUTEX_SELF] = { itself, "w-self" },
	[RWSEM_XY] = { xy, "w-xy" },
	[RWSEM_YX] = { yx, "w-yx" },
	[RWSEM_READER] = { reader, "w-reader" },
	[RWSEM_WRITER] = { writer, "w-writer" },
	[SEMAPHORE] = { down_twice, "w-semaphore" },
	[COMPLETION] = { waits, "w-completion" },
	[STOPPER] = { stops, "w-stopper" },
	[STOPPED] = { waits, "w-stopped" },
	[FLUSHER] = { flushes, "w-flusher" },
	[QUEUE] = { queues, "w-queue" },
	[BIT] = { bit, "w-bit" },
	[VARIABLE] = { on_variable, "w-variable" },
	[RT_HOLDER] = { rt_holder, "w-rt-holder" },
	[RT_WAITER] = { rt_waiter, "w-rt-waiter" },
	[FOLIO] = { folio, "w-folio" },
	[WRITEBACK] = { writeback, "w-writeback" },
	[SRCU_READER] = { srcu_reader, "w-srcu-reader" },
	[SRCU_WAITER] = { srcu_waiter, "w-srcu-waiter" },
};

static int __init orcwaits_init(void)
{
	int each;

	sema_init(&twice, 1);
	INIT_WORK(&work, blocks);
	works = alloc_workqueue("orcwaits", WQ_UNBOUND, 0);
	locked_page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	written_page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!works || !locked_page || !written_page)
		return -ENOMEM;
	set_bit(PG_locked, (unsigned long *)&locked_page->flags);
	set_bit(PG_writeback, (unsigned long *)&written_page->flags);

	for (each = 0; each < COUNT; each++) {
		tasks[each] = kthread_create(threads[each].function, NULL, "%s", threads[each].name);
		if (IS_ERR(tasks[each]))
			return PTR_ERR(tasks[each]);
	}
	for (each = 0; each < COUNT; each++)
		wake_up_process(tasks[each]);
	msleep(1500);
	SAY("end", "%d", COUNT + 1);
	return 0;
}

module_init(orcwaits_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Threads that wait, for orcdbg's lab");
