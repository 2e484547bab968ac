/* The application of the benchmark. For each line "SERVICE SOURCE PROCESSES ATTEMPTS LIVED NUMBER"
 * that it reads it starts PROCESSES processes at once, each of which makes ATTEMPTS login attempts:
 * each attempt in a fresh process of its own, or, if LIVED is 1, all in the one process. It writes
 * "ANSWER ALL CPU MEDIAN", where ANSWER is what all attempts were answered, or -1, and the others
 * are nanoseconds: from the first to the last, processor time of all together, and the median time
 * of an attempt of the first process.
 *
 * In C, because sshd and Dovecot are: a Rust program has libgcc_s and libm in memory already, and
 * a module that needs them would get them for nothing. */
#include <fcntl.h>
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, UNLIKE = -1, NONE = -2 };

/* What a process tells of its attempts. */
struct account {
    long long start, end, cpu, median;
    int answer;
};

static const char *confdir, *user;

static int wrong_password(int count, const struct pam_message **messages,
                          struct pam_response **responses, void *data)
{
    char guess[32];
    snprintf(guess, sizeof guess, "guess %d", *(int *)data);
    *responses = calloc(count, sizeof **responses);
    for (int i = 0; i < count; i++)
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF)
            (*responses)[i].resp = strdup(guess);
    return PAM_SUCCESS;
}

/* The least that any module must do which keeps a book in a file. */
static int least(void)
{
    char page[4096], path[4096];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    snprintf(path, sizeof path, "%s/book", confdir);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || fcntl(file, F_SETLKW, &lock) < 0)
        return PAM_ABORT;
    if (pread(file, page, sizeof page, 0) < 0 || pwrite(file, page, sizeof page, 0) < 0)
        return PAM_ABORT;
    close(file);
    return PAM_SUCCESS;
}

static int attempt(const char *service, const char *source, int number)
{
    if (strcmp(service, "least") == 0)
        return least();
    /* A new one each time, in a /32 of its own, and no pattern below; or in one of the 8192 /32s
     * of a /19. */
    char address[64];
    int stranger = strcmp(source, "stranger") == 0;
    if (stranger || strcmp(source, "neighbour") == 0) {
        unsigned bits = number * 2654435761u;
        int network = stranger ? number : number & 0x1fff;
        snprintf(address, sizeof address, "26%02x:%x:%x:%x::%x", network >> 16 & 0xff,
                 network & 0xffff, bits >> 16, bits & 0xffff, bits >> 8 & 0xffff);
        source = address;
    }
    /* A new password each time: the same wrong one again would not be counted. */
    struct pam_conv conversation = {wrong_password, &number};
    pam_handle_t *handle;
    if (pam_start_confdir(service, user, &conversation, confdir, &handle) != PAM_SUCCESS)
        return PAM_ABORT;
    pam_set_item(handle, PAM_RHOST, source);
    int answer = pam_authenticate(handle, 0);
    pam_end(handle, answer);
    return answer;
}

static int attempt_in_fresh_process(const char *service, const char *source, int number)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(attempt(service, source, number));
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : UNLIKE;
}

static long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static long long cpu_of(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    long long seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec;
    return (seconds * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static int by_size(const void *one, const void *other)
{
    long long a = *(const long long *)one, b = *(const long long *)other;
    return (a > b) - (a < b);
}

/* What one of the processes does once all are there. */
static void work(struct account *account, int ready, int gate, const char *service,
                 const char *source, int attempts, int lived, int number)
{
    char nothing = 0;
    long long *times = calloc(attempts, sizeof *times);
    account->answer = NONE;
    /* What is done only once in such a process is not measured. */
    if (lived)
        attempt(service, source, number++);
    if (write(ready, &nothing, 1) != 1)
        _exit(2);
    while (read(gate, &nothing, 1) > 0)
        ;
    long long cpu = cpu_of(RUSAGE_SELF) + cpu_of(RUSAGE_CHILDREN);
    account->start = nanoseconds();
    for (int i = 0; i < attempts; i++, number++) {
        long long before = nanoseconds();
        int answer = lived ? attempt(service, source, number)
                           : attempt_in_fresh_process(service, source, number);
        account->answer = i == 0 || answer == account->answer ? answer : UNLIKE;
        times[i] = nanoseconds() - before;
    }
    account->end = nanoseconds();
    account->cpu = cpu_of(RUSAGE_SELF) + cpu_of(RUSAGE_CHILDREN) - cpu;
    qsort(times, attempts, sizeof *times, by_size);
    account->median = times[attempts / 2];
}

int main(int argc, char **argv)
{
    char service[64], source[64];
    int processes, attempts, lived, number;
    if (argc != 3)
        return 2;
    confdir = argv[1];
    user = argv[2];
    struct account *accounts = mmap(NULL, MOST * sizeof *accounts, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    while (scanf("%63s %63s %d %d %d %d", service, source, &processes, &attempts, &lived,
                 &number) == 6) {
        int ready[2], gate[2];
        char nothing;
        if (processes > MOST || pipe(ready) != 0 || pipe(gate) != 0)
            return 2;
        for (int i = 0; i < processes; i++) {
            if (fork() == 0) {
                close(gate[1]);
                work(&accounts[i], ready[1], gate[0], service, source, attempts, lived,
                     number + i * (attempts + lived));
                _exit(0);
            }
        }
        close(ready[1]);
        for (int i = 0; i < processes; i++)
            if (read(ready[0], &nothing, 1) != 1)
                return 2;
        close(ready[0]);
        close(gate[0]);
        close(gate[1]);
        while (wait(NULL) > 0)
            ;
        struct account all = accounts[0];
        for (int i = 1; i < processes; i++) {
            all.start = accounts[i].start < all.start ? accounts[i].start : all.start;
            all.end = accounts[i].end > all.end ? accounts[i].end : all.end;
            all.cpu += accounts[i].cpu;
            all.answer = accounts[i].answer == all.answer ? all.answer : UNLIKE;
        }
        printf("%d %lld %lld %lld\n", all.answer, all.end - all.start, all.cpu, all.median);
        fflush(stdout);
    }
    return 0;
}
