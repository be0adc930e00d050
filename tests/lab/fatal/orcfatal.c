// SPDX-License-Identifier: GPL-2.0
/*
 * A module that dies as it is told, for the lab of orcdbg: `echo KIND > /sys/module/orcfatal/parameters/die`.
 *
 * It says first what it is about to do, and of what: `orcfatal: KEY VALUE...`. That is what `analyze` is held to.
 */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/refcount.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/vmalloc.h>

#define SAY(key, format, ...) printk(KERN_INFO "orcfatal: " key " " format "\n", ##__VA_ARGS__)

struct orcfatal_ring {
	u32 head;
	u32 tail;
	u64 slots[6];
};

struct orcfatal_queue {
	u64 flags;
	struct orcfatal_ring *ring;
	int (*kick)(struct orcfatal_queue *queue);
	struct list_head link;
	u64 room[3];
};

struct orcfatal_device {
	char name[24];
	refcount_t users;
	u32 divisor;
	struct orcfatal_queue *queue[4];
	struct list_head queues;
};

static struct orcfatal_device device;
static struct orcfatal_queue queues[4];
static struct orcfatal_ring ring;
static struct kmem_cache *cache;
static struct timer_list timer;
/* What would be computed for nothing would not be computed. */
static u32 sum;

static noinline u32 orcfatal_fill(struct orcfatal_queue *queue, u32 by)
{
	u32 tail = queue->ring->tail;

	queue->flags |= by;
	return tail + by;
}

static noinline u32 orcfatal_poll(struct orcfatal_device *dev, int which)
{
	u32 before = refcount_read(&dev->users);

	return orcfatal_fill(dev->queue[which], before) + before;
}

static noinline int orcfatal_kick(struct orcfatal_device *dev, int which)
{
	struct orcfatal_queue *queue = dev->queue[which];
	int done = queue->kick(queue);

	dev->divisor += done;
	return done;
}

static noinline u32 orcfatal_share(struct orcfatal_device *dev, u32 of)
{
	return of / READ_ONCE(dev->divisor) + of;
}

static noinline void orcfatal_uaf(void)
{
	struct orcfatal_queue *queue = kmem_cache_zalloc(cache, GFP_KERNEL);
	struct orcfatal_queue *other = kmem_cache_zalloc(cache, GFP_KERNEL);

	if (!queue || !other)
		return;
	queue->ring = &ring;
	device.queue[1] = queue;
	/* Where SLUB keeps the link of its list: in the middle of an object. So whatever is read there of a free one is none. */
	SAY("object", "%px", queue);
	kmem_cache_free(cache, other);
	kmem_cache_free(cache, queue);
	list_del(&queue->link);
}

static noinline void orcfatal_double_free(void)
{
	struct orcfatal_queue *queue = kmem_cache_zalloc(cache, GFP_KERNEL);

	SAY("object", "%px", queue);
	kmem_cache_free(cache, queue);
	kmem_cache_free(cache, queue);
}

/* Slabs are filled in random order: the next object that is allocated is rarely the neighbour, one of many surely is. */
static noinline void orcfatal_overrun(void)
{
	static struct orcfatal_queue *all[128];
	struct orcfatal_queue *first = NULL, *second = NULL;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(all) && !second; i++) {
		all[i] = kmem_cache_zalloc(cache, GFP_KERNEL);
		if (!all[i])
			return;
		for (j = 0; j < i && !second; j++) {
			if ((u8 *)all[i] == (u8 *)all[j] + kmem_cache_size(cache)) {
				first = all[j];
				second = all[i];
			} else if ((u8 *)all[j] == (u8 *)all[i] + kmem_cache_size(cache)) {
				first = all[i];
				second = all[j];
			}
		}
	}
	if (!second)
		return;
	device.queue[3] = second;
	SAY("object", "%px", second);
	SAY("neighbour", "%px", first);
	memset((void *)READ_ONCE(first) + 16, 'A', kmem_cache_size(cache));
	WRITE_ONCE(sum, orcfatal_poll(&device, 3));
}

static noinline void orcfatal_unlink(struct orcfatal_queue *queue)
{
	list_del(&queue->link);
}

static noinline void orcfatal_enlist(struct orcfatal_device *dev, struct orcfatal_queue *queue)
{
	list_add_tail(&queue->link, &dev->queues);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winfinite-recursion"
#pragma GCC diagnostic ignored "-Wpragmas"
static noinline u64 orcfatal_recurse(u64 depth)
{
	volatile u64 room[24];

	room[depth % 24] = depth;
	return orcfatal_recurse(depth + 1) + room[(depth + 1) % 24];
}
#pragma GCC diagnostic pop

static noinline void orcfatal_scribble(char *where, int count)
{
	while (count-- > 0)
		WRITE_ONCE(*where++, 'S');
}

static noinline void orcfatal_smash(void)
{
	char room[16];

	orcfatal_scribble(room, 40);
	SAY("scribbled", "%c", room[3]);
}

static noinline void orcfatal_spin(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

static noinline void orcfatal_stall(void)
{
	rcu_read_lock();
	preempt_disable();
	for (;;)
		cpu_relax();
}

static noinline void orcfatal_eat(void)
{
	void **last = NULL, **block;

	for (;;) {
		block = (void **)__get_free_pages(GFP_KERNEL, 2);
		if (!block)
			block = (void **)__get_free_page(GFP_KERNEL | __GFP_NOFAIL);
		*block = last;
		last = block;
	}
}

static void orcfatal_tick(struct timer_list *unused)
{
	WRITE_ONCE(sum, orcfatal_poll(&device, 2));
}

static noinline void orcfatal_hang(void)
{
	DECLARE_COMPLETION_ONSTACK(never);

	wait_for_completion(&never);
}

extern unsigned long int_sqrt(unsigned long);

static noinline void orcfatal_change_text(void)
{
	unsigned long cr0;
	u8 *text = (u8 *)READ_ONCE(*(void **)&(void *){ int_sqrt });

	SAY("text", "%px", text);
	asm volatile("mov %%cr0, %0" : "=r"(cr0));
	local_irq_disable();
	asm volatile("mov %0, %%cr0" : : "r"(cr0 & ~(1ul << 16)) : "memory");
	text[0] = 0x0f;
	text[1] = 0x0b;
	asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
	local_irq_enable();
	SAY("root", "%lu", int_sqrt(device.divisor));
}

static int orcfatal_die(const char *value, const struct kernel_param *param)
{
	char kind[24];

	strscpy(kind, value, sizeof(kind));
	strim(kind);
	SAY("kind", "%s", kind);
	SAY("device", "%px", &device);
	if (!strcmp(kind, "null")) {
		SAY("object", "%px", &queues[2]);
		WRITE_ONCE(sum, orcfatal_poll(&device, 2));
	} else if (!strcmp(kind, "wild")) {
		device.queue[1]->ring = (void *)0xffffc7deadbee000ul;
		SAY("object", "%px", &queues[1]);
		SAY("pointer", "%px", device.queue[1]->ring);
		WRITE_ONCE(sum, orcfatal_poll(&device, 1));
	} else if (!strcmp(kind, "gp")) {
		device.queue[1]->ring = (void *)0x5ca1ab1edeadbeeful;
		SAY("object", "%px", &queues[1]);
		SAY("pointer", "%px", device.queue[1]->ring);
		WRITE_ONCE(sum, orcfatal_poll(&device, 1));
	} else if (!strcmp(kind, "callnull")) {
		SAY("object", "%px", &queues[2]);
		orcfatal_kick(&device, 2);
	} else if (!strcmp(kind, "callwild")) {
		device.queue[1]->kick = (void *)&ring;
		SAY("object", "%px", &queues[1]);
		SAY("pointer", "%px", &ring);
		orcfatal_kick(&device, 1);
	} else if (!strcmp(kind, "uaf")) {
		orcfatal_uaf();
	} else if (!strcmp(kind, "doublefree")) {
		orcfatal_double_free();
	} else if (!strcmp(kind, "overrun")) {
		orcfatal_overrun();
	} else if (!strcmp(kind, "listdel")) {
		SAY("object", "%px", &queues[1].link);
		orcfatal_unlink(&queues[1]);
		orcfatal_unlink(&queues[1]);
	} else if (!strcmp(kind, "listadd")) {
		SAY("object", "%px", &queues[3].link);
		queues[3].link.next = &queues[0].link;
		orcfatal_enlist(&device, &queues[1]);
	} else if (!strcmp(kind, "bug")) {
		BUG();
	} else if (!strcmp(kind, "warn")) {
		WARN(1, "orcfatal: %s is worth a warning\n", device.name);
	} else if (!strcmp(kind, "refcount")) {
		SAY("object", "%px", &device.users);
		refcount_set(&device.users, 0);
		refcount_inc(&device.users);
	} else if (!strcmp(kind, "overflow")) {
		SAY("depth", "%llu", orcfatal_recurse(device.divisor));
	} else if (!strcmp(kind, "smash")) {
		orcfatal_smash();
	} else if (!strcmp(kind, "divide")) {
		SAY("share", "%u", orcfatal_share(&device, 7));
	} else if (!strcmp(kind, "softlockup")) {
		orcfatal_spin();
	} else if (!strcmp(kind, "stall")) {
		orcfatal_stall();
	} else if (!strcmp(kind, "hung")) {
		orcfatal_hang();
	} else if (!strcmp(kind, "panic")) {
		panic("orcfatal: %s gives up", device.name);
	} else if (!strcmp(kind, "oom")) {
		orcfatal_eat();
	} else if (!strcmp(kind, "timer")) {
		SAY("object", "%px", &queues[2]);
		mod_timer(&timer, jiffies + HZ / 10);
	} else if (!strcmp(kind, "text")) {
		orcfatal_change_text();
	} else {
		return -EINVAL;
	}
	return 0;
}

static int orcfatal_told(char *buffer, const struct kernel_param *param)
{
	return 0;
}

static const struct kernel_param_ops die_ops = { .set = orcfatal_die, .get = orcfatal_told };
module_param_cb(die, &die_ops, NULL, 0600);

static int __init orcfatal_init(void)
{
	int number;

	strscpy(device.name, "fatal0", sizeof(device.name));
	refcount_set(&device.users, 1);
	INIT_LIST_HEAD(&device.queues);
	for (number = 0; number < ARRAY_SIZE(queues); number++) {
		queues[number].flags = number;
		/* The third queue has neither a ring nor anything to kick. */
		queues[number].ring = number == 2 ? NULL : &ring;
		device.queue[number] = &queues[number];
		if (number != 1)
			list_add_tail(&queues[number].link, &device.queues);
		else
			INIT_LIST_HEAD(&queues[number].link);
	}
	timer_setup(&timer, orcfatal_tick, 0);
	cache = kmem_cache_create("orcfatal_queue", sizeof(struct orcfatal_queue), 0, SLAB_ACCOUNT, NULL);
	return cache ? 0 : -ENOMEM;
}

module_init(orcfatal_init);
MODULE_DESCRIPTION("orcdbg's lab: dies as it is told");
MODULE_LICENSE("GPL");
