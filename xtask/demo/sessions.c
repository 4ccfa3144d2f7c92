// A small session server, answering a thousand requests a second. It leaks: which line forgets what?
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct session { int user; char *token; char *profile; };

static struct session *sessions[64];  // who is logged in; as many as fit
static char *pages[256];              // rendered pages; each replaces the one before it

static struct session *log_in(int user) {
    struct session *session = malloc(sizeof *session);
    session->user = user;
    session->token = strdup("f3a9c0d1e2b4");
    session->profile = calloc(1, 2048);
    return session;
}

static void log_out(struct session *session) {
    if (!session) return;
    free(session->token);
    if (session->user % 10) free(session->profile);  // one user in ten keeps theirs for ever
    free(session);
}

static void cache_page(int page) {
    free(pages[page]);
    pages[page] = malloc(4096);
}

static void answer(int request) {
    char *body = malloc(512 + request % 1024);
    snprintf(body, 512, "hello %d", request);
    free(body);
}

int main(void) {
    alarm(60);  // ends by itself, should nobody end it
    for (int request = 0;; request++, usleep(1000)) {
        answer(request);
        cache_page(request % 256);
        struct session **slot = &sessions[request % 64];
        log_out(*slot);
        *slot = log_in(request);
    }
}
