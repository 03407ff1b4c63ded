/* The CNI plugin for hosts without Python: hands its environment and standard input to the node's agent, and prints the
 * answer. It decides nothing.
 *
 * The one part of Tortie that is not Python. A container runtime starts it anew for every pod on hosts that have no
 * interpreter, and where there is one, starting it takes longer than all the rest of what the plugin does. It does what
 * plugin.py does, and the same tests are run against both; the protocol is that of
 * services/node_dataplane/cni_server.py:
 *
 *     {"env": {"CNI_...": "..."}, "stdin": "<the network configuration>"}   ->
 *     {"exit":0,"stdout":"..."}                                             <-
 *
 * POSIX and the C library alone, made to be linked statically (`make cni-front`).
 */

#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET "/run/tortie/cni.sock"
#define VERSIONS "[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]"

enum {
    PATIENCE_S = 90, /* longer than the agent's own deadline, which names its reason */
    INVALID_ENVIRONMENT = 4, /* the codes of the CNI specification */
    TRY_AGAIN = 11,
    DEEPEST = 1000, /* nesting of a configuration */
};

extern char **environ;

/* --- text that grows; always ends in a NUL that does not count */

typedef struct {
    char *data;
    size_t length, room;
} Text;

static void append(Text *text, const char *data, size_t length)
{
    if (text->length + length + 1 > text->room) {
        size_t room = (text->length + length + 1) * 2;
        char *grown = realloc(text->data, room);
        if (grown == NULL) {
            static const char lost[] = "{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"the tortie plugin has no memory\"}\n";
            if (write(1, lost, sizeof lost - 1) < 0)
                _exit(2);
            _exit(1);
        }
        text->data = grown;
        text->room = room;
    }
    memcpy(text->data + text->length, data, length);
    text->length += length;
    text->data[text->length] = '\0';
}

static void say(Text *text, const char *words)
{
    append(text, words, strlen(words));
}

/* The length of the UTF-8 sequence at `at` (RFC 3629), 0: there is none. */
static size_t sequence(const unsigned char *at, size_t left)
{
    unsigned char first = at[0], low = 0x80, high = 0xBF;
    size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (length == 0 || length > left)
        return 0;
    if (first == 0xE0)
        low = 0xA0; /* the long form of a shorter sequence */
    else if (first == 0xED)
        high = 0x9F; /* half of a surrogate pair */
    else if (first == 0xF0)
        low = 0x90;
    else if (first == 0xF4)
        high = 0x8F; /* beyond U+10FFFF */
    for (size_t i = 1; i < length; i++, low = 0x80, high = 0xBF)
        if (at[i] < low || at[i] > high)
            return 0;
    return length;
}

/* As a JSON string (RFC 8259). What is not UTF-8 becomes U+FFFD. */
static void quote(Text *text, const char *data, size_t length)
{
    const unsigned char *at = (const unsigned char *)data;
    say(text, "\"");
    for (size_t i = 0; i < length;) {
        size_t run = i;
        while (run < length && at[run] >= 0x20 && at[run] < 0x80 && at[run] != '"' && at[run] != '\\')
            run++;
        append(text, data + i, run - i);
        i = run;
        if (i == length)
            break;
        char escaped[8];
        if (at[i] == '"' || at[i] == '\\') {
            char pair[2] = {'\\', data[i++]};
            append(text, pair, 2);
        } else if (at[i] < 0x20) {
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)at[i++]);
            append(text, escaped, 6);
        } else {
            size_t whole = sequence(at + i, length - i);
            if (whole != 0)
                append(text, data + i, whole);
            else
                say(text, "\xEF\xBF\xBD");
            i += whole != 0 ? whole : 1;
        }
    }
    say(text, "\"");
}

/* --- reading JSON: just enough to find a string of the top level. Each reader returns where it stopped, NULL: malformed */

static const char *blank(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

static const char *hexadecimal(const char *at, uint32_t *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdefABCDEF";
        const char *digit = at[i] != '\0' ? strchr(digits, at[i]) : NULL;
        if (digit == NULL)
            return NULL;
        uint32_t number = (uint32_t)(digit - digits);
        *value = *value << 4 | (number < 16 ? number : number - 6);
    }
    return at + 4;
}

static void encode(Text *text, uint32_t point)
{
    char bytes[4];
    size_t length = 0;
    if (point >= 0xD800 && point < 0xE000)
        point = 0xFFFD; /* half of a pair has no meaning */
    if (point < 0x80) {
        bytes[length++] = (char)point;
    } else if (point < 0x800) {
        bytes[length++] = (char)(0xC0 | point >> 6);
        bytes[length++] = (char)(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        bytes[length++] = (char)(0xE0 | point >> 12);
        bytes[length++] = (char)(0x80 | (point >> 6 & 0x3F));
        bytes[length++] = (char)(0x80 | (point & 0x3F));
    } else {
        bytes[length++] = (char)(0xF0 | point >> 18);
        bytes[length++] = (char)(0x80 | (point >> 12 & 0x3F));
        bytes[length++] = (char)(0x80 | (point >> 6 & 0x3F));
        bytes[length++] = (char)(0x80 | (point & 0x3F));
    }
    append(text, bytes, length);
}

/* A string, from its first quotation mark on; what it says goes to `text` if there is one. */
static const char *string(const char *at, Text *text)
{
    Text nowhere = {NULL, 0, 0};
    Text *into = text != NULL ? text : &nowhere;
    if (*at++ != '"')
        return NULL;
    while (*at != '"') {
        if ((unsigned char)*at < 0x20) {
            at = NULL; /* the end of the text, too */
            break;
        }
        if (*at != '\\') {
            append(into, at++, 1);
            continue;
        }
        static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
        const char *escape = at[1] != '\0' ? strchr(escapes, at[1]) : NULL;
        if (escape != NULL) {
            append(into, meanings + (escape - escapes), 1);
            at += 2;
            continue;
        }
        uint32_t point, low;
        const char *end = at[1] == 'u' ? hexadecimal(at + 2, &point) : NULL;
        if (end == NULL) {
            at = NULL;
            break;
        }
        at = end;
        if (point >= 0xD800 && point < 0xDC00 && at[0] == '\\' && at[1] == 'u') {
            end = hexadecimal(at + 2, &low);
            if (end != NULL && low >= 0xDC00 && low < 0xE000) {
                point = 0x10000 + ((point - 0xD800) << 10 | (low - 0xDC00));
                at = end;
            }
        }
        encode(into, point);
    }
    free(nowhere.data);
    return at != NULL ? at + 1 : NULL;
}

/* Any value, passed over. */
static const char *value(const char *at, int depth)
{
    if (*at == '"')
        return string(at, NULL);
    if (*at != '{' && *at != '[') {
        size_t length = strcspn(at, ",]}\" \t\r\n");
        return length != 0 ? at + length : NULL;
    }
    if (depth == DEEPEST)
        return NULL;
    bool object = *at == '{';
    char end = object ? '}' : ']';
    at = blank(at + 1);
    if (*at == end)
        return at + 1;
    while (true) {
        if (object) {
            at = string(at, NULL);
            if (at == NULL || *(at = blank(at)) != ':')
                return NULL;
            at = blank(at + 1);
        }
        at = value(at, depth + 1);
        if (at == NULL)
            return NULL;
        at = blank(at);
        if (*at == end)
            return at + 1;
        if (*at != ',')
            return NULL;
        at = blank(at + 1);
    }
}

/* The string `name` of the configuration's top level; `otherwise` when there is none. Of two the last counts. */
static Text field(const char *configuration, const char *name, const char *otherwise)
{
    Text found = {NULL, 0, 0}, key = {NULL, 0, 0}, said = {NULL, 0, 0};
    say(&found, otherwise);
    const char *at = blank(configuration);
    if (*at != '{')
        return found;
    at = blank(at + 1);
    while (at != NULL && *at == '"') {
        key.length = said.length = 0;
        at = string(at, &key);
        if (at == NULL || *(at = blank(at)) != ':')
            break;
        at = blank(at + 1);
        bool wanted = key.length == strlen(name) && memcmp(key.data, name, key.length) == 0;
        bool is_string = *at == '"';
        at = is_string ? string(at, &said) : value(at, 1);
        if (at != NULL && wanted) {
            found.length = 0;
            if (is_string)
                append(&found, said.length != 0 ? said.data : "", said.length);
            else
                say(&found, otherwise);
        }
        if (at == NULL || *(at = blank(at)) != ',')
            break;
        at = blank(at + 1);
    }
    free(key.data);
    free(said.data);
    return found;
}

/* --- input and output */

static void print(const Text *text)
{
    for (size_t done = 0; done < text->length;) {
        ssize_t written = write(1, text->data + done, text->length - done);
        if (written < 0 && errno != EINTR)
            _exit(2); /* nobody listens */
        done += written > 0 ? (size_t)written : 0;
    }
}

static int failure(const char *configuration, int code, const char *message, const char *details)
{
    Text version = field(configuration, "cniVersion", "1.0.0"), text = {NULL, 0, 0};
    char number[32];
    snprintf(number, sizeof number, ",\"code\":%d,\"msg\":", code);
    say(&text, "{\"cniVersion\":");
    quote(&text, version.data, version.length);
    say(&text, number);
    quote(&text, message, strlen(message));
    if (*details != '\0') {
        say(&text, ",\"details\":");
        quote(&text, details, strlen(details));
    }
    say(&text, "}\n");
    print(&text);
    return 1;
}

/* 0 or an errno; the agent's whole answer, empty when it ended without one. */
static int ask(const char *path, const Text *request, Text *answer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    if (strlen(path) >= sizeof address.sun_path)
        return ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int agent = socket(AF_UNIX, SOCK_STREAM, 0);
    if (agent < 0 || setsockopt(agent, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0 ||
        setsockopt(agent, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        connect(agent, (struct sockaddr *)&address, sizeof address) < 0)
        return errno;
    for (size_t done = 0; done < request->length;) {
        ssize_t sent = send(agent, request->data + done, request->length - done, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return errno;
        done += sent > 0 ? (size_t)sent : 0;
    }
    if (shutdown(agent, SHUT_WR) < 0)
        return errno;
    static char part[1 << 16];
    while (true) {
        ssize_t got = recv(agent, part, sizeof part, 0);
        if (got == 0)
            return 0;
        if (got < 0 && errno != EINTR)
            return errno;
        if (got > 0)
            append(answer, part, (size_t)got);
    }
}

/* The agent's words on standard output, its exit code as ours; -1: that is no answer. */
static int obey(const char *answer)
{
    static const char exit_mark[] = "{\"exit\":", output_mark[] = "\"stdout\":";
    Text output = {NULL, 0, 0};
    const char *at = answer != NULL ? strstr(answer, output_mark) : NULL;
    if (at == NULL || strncmp(answer, exit_mark, sizeof exit_mark - 1) != 0)
        return -1;
    char *end;
    long code = strtol(answer + sizeof exit_mark - 1, &end, 10);
    if (*end != ',' || code < 0 || code > 255 || string(at + sizeof output_mark - 1, &output) == NULL)
        return -1;
    if (output.length != 0) {
        say(&output, "\n");
        print(&output);
    }
    return (int)code;
}

int main(void)
{
    Text configuration = {NULL, 0, 0}, request = {NULL, 0, 0}, answer = {NULL, 0, 0}, text = {NULL, 0, 0};
    static char part[1 << 16];
    say(&configuration, "");
    for (ssize_t got; (got = read(0, part, sizeof part)) != 0;) {
        if (got < 0 && errno != EINTR)
            return failure("", TRY_AGAIN, "the network configuration cannot be read", strerror(errno));
        if (got > 0)
            append(&configuration, part, (size_t)got);
    }
    const char *command = getenv("CNI_COMMAND");
    if (command == NULL || *command == '\0')
        return failure(configuration.data, INVALID_ENVIRONMENT,
                       "CNI_COMMAND is not set: this is a CNI plugin, run by a container runtime", "");
    if (strcmp(command, "VERSION") == 0) {
        Text version = field(configuration.data, "cniVersion", "1.1.0");
        say(&text, "{\"cniVersion\":");
        quote(&text, version.data, version.length);
        say(&text, ",\"supportedVersions\":" VERSIONS "}\n");
        print(&text);
        return 0;
    }
    say(&request, "{\"env\":{");
    bool first = true;
    for (char **variable = environ; *variable != NULL; variable++) {
        const char *equals = strchr(*variable, '=');
        if (equals == NULL || strncmp(*variable, "CNI_", 4) != 0)
            continue;
        say(&request, first ? "" : ",");
        quote(&request, *variable, (size_t)(equals - *variable));
        say(&request, ":");
        quote(&request, equals + 1, strlen(equals + 1));
        first = false;
    }
    say(&request, "},\"stdin\":");
    quote(&request, configuration.data, configuration.length);
    say(&request, "}");
    Text path = field(configuration.data, "socket", SOCKET);
    int error = ask(path.data, &request, &answer);
    if (error == EAGAIN || error == EWOULDBLOCK || error == ETIMEDOUT) {
        char seconds[64];
        snprintf(seconds, sizeof seconds, " did not answer in %d s", PATIENCE_S);
        say(&text, "the tortie agent at ");
        say(&text, path.data);
        say(&text, seconds);
        return failure(configuration.data, TRY_AGAIN, text.data, "");
    }
    if (error != 0) {
        say(&text, "the tortie agent does not listen on ");
        say(&text, path.data);
        say(&text, ": is it running on this node?");
        return failure(configuration.data, TRY_AGAIN, text.data, strerror(error));
    }
    int code = obey(answer.data);
    if (code < 0)
        return failure(configuration.data, TRY_AGAIN,
                       "the tortie agent ended before it answered; it is safe to try again", "");
    return code;
}
