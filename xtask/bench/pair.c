/* A block of 64 bytes, allocated and freed again, eight calls deep: the cost of a pair. */
#include "protocol.h"

static void *volatile sink;

/* Called, not inlined, and not by a jump: what follows the call is not nothing. */
#define FRAME __attribute__((noinline)) static long
#define AFTER __asm__ volatile("" ::: "memory")

FRAME pairs(long count)
{
	for (long i = 0; i < count; i++) {
		sink = malloc(64);
		free(sink);
	}
	return count;
}

FRAME inner(long count)
{
	long done = pairs(count);
	AFTER;
	return done;
}

FRAME middle(long count)
{
	long done = inner(count);
	AFTER;
	return done;
}

static void nothing(void)
{
}

/* With serve, main and the three of libc that start it: eight frames. */
int main(void)
{
	return serve(middle, nothing);
}
