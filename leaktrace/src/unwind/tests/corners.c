// Stacks that are hard to unwind. At each int3 after the first, rdi points to what backtrace() says, rsi is its length.
#define _GNU_SOURCE
#include <alloca.h>
#include <execinfo.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))
#define KEEP(value) __asm__ volatile("" : : "r"(value) : "memory")

static void *truth[256];

// Called by backtrace() is a frame of its own; the stop is in this one.
NOINLINE static void check(void) {
    memset(truth, 0, sizeof truth);
    long count = backtrace(truth, 256);
    __asm__ volatile("int3" : : "D"(truth), "S"(count) : "memory");
}

NOINLINE static long realigned(long n) {
    char block[64] __attribute__((aligned(64)));
    memset(block, (int)n, sizeof block);
    KEEP(block);
    check();
    return block[n & 63];
}

NOINLINE static long realigned_variable(long n) {
    char block[64] __attribute__((aligned(64)));
    char *more = alloca((size_t)n * 16 + 8);
    memset(more, 1, (size_t)n);
    KEEP(block);
    KEEP(more);
    check();
    return more[0] + realigned(n);
}

NOINLINE static long variable(long n) {
    char block[n * 3 + 1];
    memset(block, 2, (size_t)n);
    KEEP(block);
    check();
    return block[n - 1] + realigned_variable(n);
}

NOINLINE static long large(long n) {
    char block[40000];
    block[n] = 1;
    KEEP(block);
    check();
    return block[n];
}

NOINLINE static long deep(long n) {
    volatile long local = n;
    if (n == 0) {
        check();
        return 1;
    }
    return deep(n - 1) + local;
}

static int order(const void *a, const void *b) {
    static int calls;
    if (calls++ < 2) {
        check();
    }
    return *(const int *)a - *(const int *)b;
}

NOINLINE static void sorted(void) {
    int values[] = {5, 3, 9, 1, 7};
    qsort(values, 5, sizeof values[0], order);
    KEEP(values);
}

static void on_signal(int number) {
    KEEP(number);
    check();
}

NOINLINE static void signals(void) {
    static char stack[65536];
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&other, NULL);
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR2, &action, NULL);
    raise(SIGUSR2);
}

static sigjmp_buf back;
static volatile long *volatile nowhere;

static void on_fault(int number) {
    KEEP(number);
    check();
    siglongjmp(back, 1);
}

// The interrupted instruction is the function's first: one byte before it is another function.
__attribute__((naked, noinline)) static void fault_at_once(volatile long *at) {
    __asm__ volatile("movq $1, (%rdi)\n\tret");
}

NOINLINE static void faults(void) {
    struct sigaction action = {.sa_handler = on_fault};
    sigaction(SIGSEGV, &action, NULL);
    if (!sigsetjmp(back, 1)) {
        fault_at_once(nowhere);
    }
}

__attribute__((noinline, noreturn)) static void leave(void) {
    check();
    siglongjmp(back, 1);
}

NOINLINE static void never_returns(long n) {
    if (n) {
        leave();
    }
}

int main(int count, char **arguments) {
    (void)arguments;
    void *warm[4];
    backtrace(warm, 4);
    __asm__ volatile("int3" : : "D"(0L), "S"(0L) : "memory");
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    KEEP(&now);
    long sum = realigned(count) + variable(count + 20) + large(count) + deep(100);
    sorted();
    signals();
    faults();
    if (!sigsetjmp(back, 1)) {
        never_returns(count);
    }
    free(strdup("lazily bound"));
    KEEP(sum);
    return 0;
}
