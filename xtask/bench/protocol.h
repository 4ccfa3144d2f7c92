/*
 * What cargo xtask bench and its programs say to each other, a line each way, without a byte from malloc:
 *   bench ready                    the program waits
 *   run N                          do N operations, or whatever the program does with a number
 *   bench done OPS CPU_NS WALL_NS  they are done: operations, and time of all threads and on the wall
 * End of input ends the program.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long nanoseconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void say(const char *line, size_t length)
{
	if (write(1, line, length) != (ssize_t)length)
		_exit(1);
}

/* The number of the next `run N`; -1 when there is none. */
static long next_run(void)
{
	char line[64];
	size_t length = 0;

	while (length < sizeof line - 1 && read(0, line + length, 1) == 1 && line[length] != '\n')
		length++;
	line[length] = 0;
	return strncmp(line, "run ", 4) == 0 ? atol(line + 4) : -1;
}

/* Serves `run N` by `work(N)`, which says how many operations it did, and then `tidy()`, which is not measured. */
static int serve(long (*work)(long), void (*tidy)(void))
{
	char line[128];
	long number;

	say("bench ready\n", 12);
	while ((number = next_run()) >= 0) {
		long cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
		long wall = nanoseconds(CLOCK_MONOTONIC);
		long operations = work(number);

		wall = nanoseconds(CLOCK_MONOTONIC) - wall;
		cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
		tidy();
		say(line, (size_t)snprintf(line, sizeof line, "bench done %ld %ld %ld\n", operations, cpu, wall));
	}
	return 0;
}
