// SPDX-License-Identifier: GPL-2.0
/*
 * A driver that no distribution has, for the lab of orcdbg: private types, lists, a tree, a slab cache, a timer, work items,
 * per-CPU variables, and a thread that sleeps in functions whose variables are known.
 *
 * What it holds depends on its parameters, and it says so in the kernel's log: `orclab: KEY VALUE...`. There is no way to
 * unload it, so that nothing has to be taken apart.
 */

#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/rbtree.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

#define SAY(key, format, ...) printk(KERN_INFO "orclab: " key " " format "\n", ##__VA_ARGS__)

static unsigned int count = 5;
module_param(count, uint, 0444);
static unsigned int freed = 2;
module_param(freed, uint, 0444);
static unsigned int salt = 1;
module_param(salt, uint, 0444);

enum orclab_mode { ORCLAB_IDLE, ORCLAB_BUSY = 7, ORCLAB_LOST = -3 };

struct orclab_point {
	s32 x;
	s32 y;
};

union orclab_word {
	u64 whole;
	u8 bytes[8];
	struct {
		u32 low;
		u32 high;
	} halves;
};

/* One of the driver's objects, from its own cache; behind it are `tail_count` numbers. */
struct orclab_item {
	u32 number;
	u32 urgent : 1;
	u32 level : 5;
	s32 offset : 9;
	enum orclab_mode mode;
	struct orclab_point from;
	struct orclab_point path[3];
	union orclab_word word;
	char label[16];
	const char *unit;
	u64 (*weigh)(const struct orclab_item *item);
	struct list_head link;
	struct rb_node node;
	u16 tail_count;
	u16 tail[];
};

#define MOST_TAIL 6

struct orclab_device {
	struct list_head items;
	struct rb_root tree;
	unsigned int item_count;
	struct kmem_cache *cache;
	struct workqueue_struct *queue;
	struct work_struct running;
	struct work_struct waiting;
	struct delayed_work later;
	struct timer_list timer;
	struct task_struct *thread;
};

struct orclab_tally {
	u64 hits;
	s32 balance;
};

static struct orclab_device *orclab_device;
static DEFINE_PER_CPU(struct orclab_tally, orclab_tally);
static DEFINE_PER_CPU(u64, orclab_ticks);
static DECLARE_COMPLETION(orclab_never);
static DECLARE_COMPLETION(orclab_asleep);

static u32 drawn(void)
{
	salt = salt * 1664525 + 1013904223;
	return salt >> 8;
}

static u64 orclab_weigh_light(const struct orclab_item *item)
{
	return item->number;
}

static u64 orclab_weigh_heavy(const struct orclab_item *item)
{
	return item->number * 1000ull;
}

static void orclab_construct(void *object)
{
	/* A cache with a constructor is merged with no other. */
	memset(object, 0x5c, sizeof(struct orclab_item));
}

static void orclab_expired(struct timer_list *timer)
{
	SAY("expired", "%px", timer);
}

static void orclab_run(struct work_struct *work)
{
	wait_for_completion(&orclab_never);
}

static void orclab_wait(struct work_struct *work)
{
	SAY("ran", "%px", work);
}

static void orclab_run_later(struct work_struct *work)
{
	SAY("ran", "%px", work);
}

/* The thread's functions: each has variables of known values, which it needs after the inner one is back. */

static noinline u64 orclab_rest(struct orclab_item *chosen, unsigned int depth)
{
	struct orclab_point here = { .x = chosen->from.x + (int)depth, .y = -5 };

	SAY("local", "orclab_rest chosen %px", chosen);
	SAY("local", "orclab_rest depth %u", depth);
	SAY("local", "orclab_rest here.x %d", here.x);
	SAY("local", "orclab_rest here.y %d", here.y);
	barrier_data(&here);
	complete(&orclab_asleep);
	for (;;) {
		set_current_state(TASK_IDLE);
		schedule();
		barrier_data(&here);
	}
	return here.x + chosen->number;
}

static noinline u64 orclab_search(struct orclab_device *device, u16 wanted)
{
	struct orclab_item *item;
	u64 seen[3] = { 11, 22, salt };
	u64 sum = 0;

	SAY("local", "orclab_search wanted %u", wanted);
	SAY("local", "orclab_search seen[0] %llu", seen[0]);
	SAY("local", "orclab_search seen[1] %llu", seen[1]);
	SAY("local", "orclab_search seen[2] %llu", seen[2]);
	barrier_data(seen);
	list_for_each_entry(item, &device->items, link) {
		if (item->number == wanted)
			sum += orclab_rest(item, 3);
		sum += item->number;
	}
	barrier_data(seen);
	return sum + seen[2] + wanted;
}

static inline u64 orclab_attempt(struct orclab_device *device, u16 number)
{
	u64 result = orclab_search(device, number);

	return result * 3;
}

static noinline int orclab_thread(void *data)
{
	struct orclab_device *device = data;
	struct orclab_item *last = list_last_entry(&device->items, struct orclab_item, link);
	enum orclab_mode mode = last->mode;

	SAY("local", "orclab_thread data %px", data);
	SAY("local", "orclab_thread device %px", device);
	SAY("local", "orclab_thread last %px", last);
	SAY("local", "orclab_thread mode %d", mode);
	return orclab_attempt(device, last->number) + mode + last->number + device->item_count;
}

static void insert(struct rb_root *root, struct orclab_item *item)
{
	struct rb_node **place = &root->rb_node, *parent = NULL;

	while (*place) {
		parent = *place;
		if (item->word.whole < rb_entry(parent, struct orclab_item, node)->word.whole)
			place = &parent->rb_left;
		else
			place = &parent->rb_right;
	}
	rb_link_node(&item->node, parent, place);
	rb_insert_color(&item->node, root);
}

static struct orclab_item *make_item(struct orclab_device *device, unsigned int number)
{
	static const enum orclab_mode modes[] = { ORCLAB_IDLE, ORCLAB_BUSY, ORCLAB_LOST };
	struct orclab_item *item = kmem_cache_alloc(device->cache, GFP_KERNEL);
	unsigned int i;

	if (!item)
		return NULL;
	item->number = 100 + number;
	item->urgent = drawn();
	item->level = drawn();
	item->offset = drawn();
	item->mode = modes[drawn() % 3];
	item->from.x = drawn();
	item->from.y = -(s32)drawn();
	for (i = 0; i < 3; i++) {
		item->path[i].x = drawn();
		item->path[i].y = -(s32)i;
	}
	item->word.whole = (u64)drawn() << 32 | drawn();
	snprintf(item->label, sizeof(item->label), "item %u", number);
	item->unit = number % 2 ? "grams" : "stones";
	item->weigh = number % 2 ? orclab_weigh_light : orclab_weigh_heavy;
	item->tail_count = drawn() % MOST_TAIL;
	for (i = 0; i < item->tail_count; i++)
		item->tail[i] = drawn();
	return item;
}

static void say_item(const struct orclab_item *item)
{
	unsigned int i;

	SAY("item", "%px", item);
	SAY("value", "%px number %u", item, item->number);
	SAY("value", "%px urgent %u", item, item->urgent);
	SAY("value", "%px level %u", item, item->level);
	SAY("value", "%px offset %d", item, item->offset);
	SAY("value", "%px mode %d", item, item->mode);
	SAY("value", "%px from.x %d", item, item->from.x);
	SAY("value", "%px from.y %d", item, item->from.y);
	for (i = 0; i < 3; i++) {
		SAY("value", "%px path[%u].x %d", item, i, item->path[i].x);
		SAY("value", "%px path[%u].y %d", item, i, item->path[i].y);
	}
	SAY("value", "%px word.whole %llu", item, item->word.whole);
	SAY("value", "%px word.bytes[1] %u", item, item->word.bytes[1]);
	SAY("value", "%px word.halves.high %u", item, item->word.halves.high);
	SAY("value", "%px tail_count %u", item, item->tail_count);
	for (i = 0; i < item->tail_count; i++)
		SAY("value", "%px tail[%u] %u", item, i, item->tail[i]);
	SAY("text", "%px label %s", item, item->label);
	SAY("text", "%px unit %s", item, item->unit);
	SAY("function", "%px weigh %ps", item, item->weigh);
}

static int make_items(struct orclab_device *device)
{
	struct orclab_item **spare = kcalloc(freed, sizeof(*spare), GFP_KERNEL);
	struct rb_node *node;
	unsigned int i;

	if (!spare)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		struct orclab_item *item = make_item(device, i);

		if (!item)
			return -ENOMEM;
		list_add_tail(&item->link, &device->items);
		insert(&device->tree, item);
		device->item_count++;
		say_item(item);
	}
	for (node = rb_first(&device->tree); node; node = rb_next(node))
		SAY("sorted", "%px", rb_entry(node, struct orclab_item, node));
	for (i = 0; i < freed; i++)
		spare[i] = kmem_cache_alloc(device->cache, GFP_KERNEL);
	for (i = 0; i < freed; i++) {
		if (!spare[i])
			continue;
		SAY("free", "%px", spare[i]);
		kmem_cache_free(device->cache, spare[i]);
	}
	kfree(spare);
	return 0;
}

static void start_work(struct orclab_device *device)
{
	INIT_WORK(&device->running, orclab_run);
	INIT_WORK(&device->waiting, orclab_wait);
	INIT_DELAYED_WORK(&device->later, orclab_run_later);
	queue_work(device->queue, &device->running);
	queue_work(device->queue, &device->waiting);
	queue_delayed_work(device->queue, &device->later, 100000 * HZ);
	SAY("work", "running %px orclab_run", &device->running);
	SAY("work", "waiting %px orclab_wait", &device->waiting);
	SAY("work", "later %px orclab_run_later", &device->later.work);
	SAY("work_timer", "%px %lu", &device->later.timer, device->later.timer.expires);

	timer_setup(&device->timer, orclab_expired, 0);
	mod_timer(&device->timer, jiffies + (50000 + drawn() % 1000) * HZ);
	SAY("timer", "%px %lu", &device->timer, device->timer.expires);
}

static int __init orclab_init(void)
{
	struct orclab_device *device = kzalloc(sizeof(*device), GFP_KERNEL);
	unsigned int size = sizeof(struct orclab_item) + MOST_TAIL * sizeof(u16);
	int cpu, error;

	if (!device)
		return -ENOMEM;
	INIT_LIST_HEAD(&device->items);
	device->tree = RB_ROOT;
	device->cache = kmem_cache_create("orclab_item", size, 0, 0, orclab_construct);
	device->queue = alloc_ordered_workqueue("orclab_queue", 0);
	if (!device->cache || !device->queue)
		return -ENOMEM;
	SAY("device", "%px", device);
	SAY("pointer", "%px", &orclab_device);
	orclab_device = device;

	error = make_items(device);
	if (error)
		return error;
	for_each_possible_cpu(cpu) {
		struct orclab_tally *tally = per_cpu_ptr(&orclab_tally, cpu);

		tally->hits = drawn();
		tally->balance = -(s32)drawn();
		*per_cpu_ptr(&orclab_ticks, cpu) = (u64)drawn() << 20 | cpu;
		SAY("per_cpu", "%d orclab_tally.hits %llu", cpu, tally->hits);
		SAY("per_cpu", "%d orclab_tally.balance %d", cpu, tally->balance);
		SAY("per_cpu", "%d orclab_ticks %llu", cpu, *per_cpu_ptr(&orclab_ticks, cpu));
		SAY("per_cpu_at", "%d %px", cpu, tally);
	}
	start_work(device);
	device->thread = kthread_run(orclab_thread, device, "orclab");
	if (IS_ERR(device->thread))
		return PTR_ERR(device->thread);
	wait_for_completion(&orclab_asleep);
	SAY("thread", "%d %px", device->thread->pid, device->thread);
	SAY("end", "%u", device->item_count);
	return 0;
}

module_init(orclab_init);
MODULE_DESCRIPTION("What the lab of orcdbg looks into");
MODULE_LICENSE("GPL");
