/*
 * The dialogue by libstrophe: MODE (plain, starttls, tls) HOST:PORT ALICE BOB.
 *
 * Both users live in one event loop. The dialogue is a list of steps: what is done, and then who has to see what. A step begins when
 * the one before was seen; what came is kept, so that nothing is missed that comes early. Exits with 0 when all was seen.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strophe.h>
#include <time.h>

enum { SEEN_MOST = 256, LINE = 512, PATIENCE_SECONDS = 15, TURN_MS = 20 };

struct person {
    const char *name;
    char jid[128];
    xmpp_conn_t *conn;
    char seen[SEEN_MOST][LINE];
    int count;
};

static xmpp_ctx_t *ctx;
static struct person alice = {.name = "alice"}, bob = {.name = "bob"};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Keeps what a person saw, as a line of words. */
__attribute__((format(printf, 2, 3))) static void came(struct person *person, const char *format, ...)
{
    if (person->count == SEEN_MOST) {
        fprintf(stderr, "FAILED: %s saw more than can be kept\n", person->name);
        exit(1);
    }
    va_list values;
    va_start(values, format);
    vsnprintf(person->seen[person->count++], LINE, format, values);
    va_end(values);
}

/* Waits until the person saw exactly this, and forgets it. */
__attribute__((format(printf, 2, 3))) static void sees(struct person *person, const char *format, ...)
{
    char wanted[LINE];
    va_list values;
    va_start(values, format);
    vsnprintf(wanted, sizeof wanted, format, values);
    va_end(values);
    for (double end = now() + PATIENCE_SECONDS; now() < end; xmpp_run_once(ctx, TURN_MS)) {
        for (int i = 0; i < person->count; i++) {
            if (strcmp(person->seen[i], wanted) != 0)
                continue;
            person->count--;
            memmove(person->seen[i], person->seen[i + 1], (size_t)(person->count - i) * LINE);
            printf("%s sees %s\n", person->name, wanted);
            return;
        }
    }
    fprintf(stderr, "FAILED: %s never saw '%s'; what came:\n", person->name, wanted);
    for (int i = 0; i < person->count; i++)
        fprintf(stderr, "    %s\n", person->seen[i]);
    exit(1);
}

/* The text of a child; to be freed by xmpp_free. Without that child: NULL. */
static char *child_text(xmpp_stanza_t *stanza, const char *name)
{
    xmpp_stanza_t *child = xmpp_stanza_get_child_by_name(stanza, name);
    return child ? xmpp_stanza_get_text(child) : NULL;
}

static int presence_came(xmpp_conn_t *conn, xmpp_stanza_t *stanza, void *data)
{
    (void)conn;
    const char *type = xmpp_stanza_get_type(stanza), *from = xmpp_stanza_get_from(stanza);
    char *bare = xmpp_jid_bare(ctx, from ? from : ""), *show = child_text(stanza, "show"), *status = child_text(stanza, "status");
    came(data, "presence %s %s [%s] %s", bare, type ? type : "available", show ? show : "", status ? status : "");
    xmpp_free(ctx, bare);
    xmpp_free(ctx, show);
    xmpp_free(ctx, status);
    return 1;
}

static int message_came(xmpp_conn_t *conn, xmpp_stanza_t *stanza, void *data)
{
    (void)conn;
    char *bare = xmpp_jid_bare(ctx, xmpp_stanza_get_from(stanza)), *body = xmpp_message_get_body(stanza);
    came(data, "message %s %s", bare, body ? body : "");
    xmpp_free(ctx, bare);
    xmpp_free(ctx, body);
    return 1;
}

static int iq_came(xmpp_conn_t *conn, xmpp_stanza_t *stanza, void *data)
{
    xmpp_stanza_t *query = xmpp_stanza_get_child_by_ns(stanza, XMPP_NS_ROSTER);
    const char *type = xmpp_stanza_get_type(stanza);
    for (xmpp_stanza_t *item = query ? xmpp_stanza_get_children(query) : NULL; item; item = xmpp_stanza_get_next(item)) {
        const char *jid = xmpp_stanza_get_attribute(item, "jid"), *subscription = xmpp_stanza_get_attribute(item, "subscription");
        came(data, "contact %s %s", jid ? jid : "", subscription ? subscription : "none");
    }
    if (strcmp(type, "result") == 0)
        came(data, "result %s", xmpp_stanza_get_id(stanza));
    if (strcmp(type, "set") == 0) {
        xmpp_stanza_t *result = xmpp_iq_new(ctx, "result", xmpp_stanza_get_id(stanza));
        xmpp_send(conn, result);
        xmpp_stanza_release(result);
    }
    return 1;
}

static void state_came(xmpp_conn_t *conn, xmpp_conn_event_t event, int error, xmpp_stream_error_t *stream_error, void *data)
{
    (void)stream_error;
    if (event == XMPP_CONN_CONNECT) {
        xmpp_handler_add(conn, presence_came, NULL, "presence", NULL, data);
        xmpp_handler_add(conn, message_came, NULL, "message", NULL, data);
        xmpp_handler_add(conn, iq_came, NULL, "iq", NULL, data);
        came(data, "a session, %s", xmpp_conn_is_secured(conn) ? "private" : "in the clear");
    } else {
        came(data, "the end, error %d", error);
    }
}

static void send_presence(struct person *person, const char *type, const char *to, const char *show, const char *status)
{
    xmpp_stanza_t *presence = xmpp_presence_new(ctx);
    const char *names[] = {"show", "status"}, *texts[] = {show, status};
    if (type)
        xmpp_stanza_set_type(presence, type);
    if (to)
        xmpp_stanza_set_to(presence, to);
    for (int i = 0; i < 2; i++) {
        if (!texts[i])
            continue;
        xmpp_stanza_t *child = xmpp_stanza_new(ctx), *text = xmpp_stanza_new(ctx);
        xmpp_stanza_set_name(child, names[i]);
        xmpp_stanza_set_text(text, texts[i]);
        xmpp_stanza_add_child_ex(child, text, 0);
        xmpp_stanza_add_child_ex(presence, child, 0);
    }
    xmpp_send(person->conn, presence);
    xmpp_stanza_release(presence);
}

static void send_message(struct person *person, const char *to, const char *body)
{
    xmpp_stanza_t *message = xmpp_message_new(ctx, "chat", to, NULL);
    xmpp_message_set_body(message, body);
    xmpp_send(person->conn, message);
    xmpp_stanza_release(message);
}

static void ask(struct person *person, const char *id, const char *name, const char *ns)
{
    xmpp_stanza_t *iq = xmpp_iq_new(ctx, "get", id), *query = xmpp_stanza_new(ctx);
    xmpp_stanza_set_name(query, name);
    xmpp_stanza_set_ns(query, ns);
    xmpp_stanza_add_child_ex(iq, query, 0);
    xmpp_send(person->conn, iq);
    xmpp_stanza_release(iq);
    sees(person, "result %s", id);
}

static void log_in(struct person *person, const char *jid, const char *mode, const char *host, unsigned short port)
{
    long flags = strcmp(mode, "plain") == 0      ? XMPP_CONN_FLAG_DISABLE_TLS
                 : strcmp(mode, "starttls") == 0 ? XMPP_CONN_FLAG_MANDATORY_TLS
                                                 : XMPP_CONN_FLAG_LEGACY_SSL;
    person->conn = xmpp_conn_new(ctx);
    snprintf(person->jid, sizeof person->jid, "%s", jid);
    xmpp_conn_set_jid(person->conn, jid);
    xmpp_conn_set_pass(person->conn, getenv("INTEROP_PASSWORD"));
    xmpp_conn_set_cafile(person->conn, getenv("INTEROP_CERTIFICATE"));
    if (xmpp_conn_set_flags(person->conn, flags) != XMPP_EOK ||
        xmpp_connect_client(person->conn, host, port, state_came, person) != XMPP_EOK) {
        fprintf(stderr, "FAILED: cannot connect to %s:%d\n", host, port);
        exit(1);
    }
    sees(person, "a session, %s", strcmp(mode, "plain") == 0 ? "in the clear" : "private");
    ask(person, "roster", "query", XMPP_NS_ROSTER);
    ask(person, "ping", "ping", "urn:xmpp:ping");
    send_presence(person, NULL, NULL, NULL, "here");
}

/* `one` asks, `other` answers (RFC 6121 section 3.1). */
static void follow(struct person *one, struct person *other)
{
    send_presence(one, "subscribe", other->jid, NULL, NULL);
    sees(other, "presence %s subscribe [] ", one->jid);
    send_presence(other, "subscribed", one->jid, NULL, NULL);
    sees(one, "presence %s subscribed [] ", other->jid);
    sees(one, "presence %s available [] here", other->jid);
}

int main(int count, char **words)
{
    char *colon = count == 5 ? strrchr(words[2], ':') : NULL;
    if (!colon) {
        fprintf(stderr, "usage: libstrophe_client MODE HOST:PORT ALICE BOB\n");
        return 2;
    }
    *colon = 0;
    const char *mode = words[1], *host = words[2];
    unsigned short port = (unsigned short)atoi(colon + 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    xmpp_initialize();
    ctx = xmpp_ctx_new(NULL, xmpp_get_default_logger(XMPP_LEVEL_WARN));

    log_in(&alice, words[3], mode, host, port);
    log_in(&bob, words[4], mode, host, port);
    follow(&alice, &bob);
    follow(&bob, &alice);
    sees(&alice, "contact %s both", bob.jid);
    sees(&bob, "contact %s both", alice.jid);
    send_presence(&bob, NULL, NULL, "away", "gone fishing");
    sees(&alice, "presence %s available [away] gone fishing", bob.jid);
    send_message(&alice, bob.jid, "hi bob & <all>");
    sees(&bob, "message %s hi bob & <all>", alice.jid);
    send_message(&bob, alice.jid, "hi alice");
    sees(&alice, "message %s hi alice", bob.jid);
    send_presence(&bob, "unavailable", NULL, NULL, "gone home");
    sees(&alice, "presence %s unavailable [] gone home", bob.jid);
    xmpp_disconnect(bob.conn);
    sees(&bob, "the end, error 0");
    xmpp_disconnect(alice.conn);
    sees(&alice, "the end, error 0");

    xmpp_conn_release(alice.conn);
    xmpp_conn_release(bob.conn);
    xmpp_ctx_free(ctx);
    xmpp_shutdown();
    return 0;
}
