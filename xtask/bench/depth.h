/* Blocks of 64 bytes, allocated and freed again, DEPTH calls deep: what a stack costs by its frames. */
#include "protocol.h"

static void *volatile sink;

#define AFTER __asm__ volatile("" ::: "memory")

__attribute__((noinline)) static long descend(long count, int depth)
{
	if (depth > 0) {
		long done = descend(count, depth - 1);

		AFTER;
		return done;
	}
	for (long i = 0; i < count; i++) {
		sink = malloc(64);
		free(sink);
	}
	return count;
}

static long work(long count)
{
	return descend(count, DEPTH);
}

static void nothing(void)
{
}

int main(void)
{
	return serve(work, nothing);
}
