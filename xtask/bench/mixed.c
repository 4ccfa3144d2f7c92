/*
 * Four threads, sizes of 16 bytes to 4 KiB, many small and few large, from four sites; one block in ten is leaked,
 * the others live for about a thousand operations. An operation is an allocation, and for nine of ten a free.
 */
#include "protocol.h"

#include <pthread.h>
#include <sys/mman.h>

#define THREADS 4
#define RING 1024
#define FRAME __attribute__((noinline)) static void *
#define KEPT(pointer) __asm__ volatile("" ::"r"(pointer) : "memory")

struct worker {
	pthread_t thread;
	unsigned long random;
	long operations;
	void *ring[RING];
	void **leaked;
	long leaks;
};

static struct worker workers[THREADS];

static unsigned long next(struct worker *worker)
{
	worker->random ^= worker->random << 13;
	worker->random ^= worker->random >> 7;
	worker->random ^= worker->random << 17;
	return worker->random;
}

FRAME parse(size_t size)
{
	void *block = malloc(size);
	KEPT(block);
	return block;
}

FRAME cache(size_t size)
{
	void *block = malloc(size);
	KEPT(block);
	return block;
}

FRAME clear(size_t size)
{
	void *block = calloc(1, size);
	KEPT(block);
	return block;
}

FRAME leak(size_t size)
{
	void *block = malloc(size);
	KEPT(block);
	return block;
}

FRAME allocate(int site, size_t size)
{
	void *block = site == 0 ? parse(size) : site == 1 ? cache(size) : site == 2 ? clear(size) : leak(size);
	KEPT(block);
	return block;
}

FRAME handle(int site, size_t size)
{
	void *block = allocate(site, size);
	KEPT(block);
	return block;
}

FRAME request(int site, size_t size)
{
	void *block = handle(site, size);
	KEPT(block);
	return block;
}

static void operation(struct worker *worker)
{
	unsigned long number = next(worker);
	size_t size = 16 + (number & ((16UL << (number >> 60) % 9) - 1));
	void **slot = &worker->ring[(number >> 20) % RING];

	if ((number >> 32) % 10 == 0) {
		worker->leaked[worker->leaks++] = request(3, size);
		return;
	}
	if (*slot)
		free(*slot);
	*slot = request((number >> 40) % 3, size);
}

FRAME work(void *argument)
{
	struct worker *worker = argument;

	for (long i = 0; i < worker->operations; i++)
		operation(worker);
	return NULL;
}

static long on_threads(long operations)
{
	for (int i = 0; i < THREADS; i++) {
		workers[i].operations = operations / THREADS;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
			_exit(1);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	return operations / THREADS * THREADS;
}

/* So that every run begins with the same heap. */
static void tidy(void)
{
	for (int i = 0; i < THREADS; i++) {
		while (workers[i].leaks > 0)
			free(workers[i].leaked[--workers[i].leaks]);
		for (int k = 0; k < RING; k++) {
			free(workers[i].ring[k]);
			workers[i].ring[k] = NULL;
		}
	}
}

int main(void)
{
	/* Room for the leaks of two million operations and more; only what is used is there. */
	for (int i = 0; i < THREADS; i++) {
		workers[i].random = 88172645463325252UL + (unsigned long)i * 7919;
		workers[i].leaked = mmap(NULL, 1UL << 30, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (workers[i].leaked == MAP_FAILED)
			return 1;
	}
	return serve(on_threads, tidy);
}
