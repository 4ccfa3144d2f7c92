/* `run N` starts N threads more, which sleep. */
#include "protocol.h"

#include <pthread.h>

static void *sleeper(void *argument)
{
	for (;;)
		pause();
	return argument;
}

static long start(long count)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	for (long i = 0; i < count; i++) {
		if (pthread_create(&thread, &small, sleeper, NULL) != 0)
			_exit(1);
	}
	return count;
}

static void nothing(void)
{
}

int main(void)
{
	return serve(start, nothing);
}
