/*
 * `run N` allocates N blocks more and holds them, from a thousand sites in turn: three calls deep, each made from one
 * of ten places. Their sizes are 16, 32, 48 or 64 bytes in turn. Nothing else is allocated.
 */
#include "protocol.h"

#define FRAME __attribute__((noinline)) static void
#define AFTER __asm__ volatile("" ::: "memory")
#define PLACES(call) PLACE(0, call) PLACE(1, call) PLACE(2, call) PLACE(3, call) PLACE(4, call) \
	PLACE(5, call) PLACE(6, call) PLACE(7, call) PLACE(8, call) PLACE(9, call)
/* The number in the comment that the assembler sees keeps the compiler from making one place of ten. */
#define PLACE(number, call) case number: call; __asm__ volatile("# " #number ::: "memory"); break;

static void *volatile last;

FRAME hundreds(long number)
{
	size_t size = 16 * (1 + (size_t)number % 4);

	switch (number / 100 % 10) {
		PLACES(last = malloc(size))
	}
	AFTER;
}

FRAME tens(long number)
{
	switch (number / 10 % 10) {
		PLACES(hundreds(number))
	}
	AFTER;
}

FRAME ones(long number)
{
	switch (number % 10) {
		PLACES(tens(number))
	}
	AFTER;
}

static long hold(long count)
{
	for (long i = 0; i < count; i++)
		ones(i);
	return count;
}

static void nothing(void)
{
}

int main(void)
{
	return serve(hold, nothing);
}
