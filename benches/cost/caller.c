/* The application of the benchmark: for each line "SERVICE SOURCE" that it reads it makes one
 * login attempt in a fresh process, and writes "ANSWER NANOSECONDS".
 *
 * In C, because sshd and Dovecot are: a Rust program has libgcc_s and libm in memory already, and
 * a module that needs them would get them for nothing. */
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

static int attempt(const char *confdir, const char *user, const char *service, const char *source,
                   int number)
{
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

int main(int argc, char **argv)
{
    char service[64], source[64];
    if (argc != 3)
        return 2;
    for (int number = 0; scanf("%63s %63s", service, source) == 2; number++) {
        struct timespec start, end;
        int status;
        clock_gettime(CLOCK_MONOTONIC, &start);
        pid_t child = fork();
        if (child == 0)
            _exit(attempt(argv[1], argv[2], service, source, number));
        waitpid(child, &status, 0);
        clock_gettime(CLOCK_MONOTONIC, &end);
        long long seconds = end.tv_sec - start.tv_sec;
        printf("%d %lld\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1,
               seconds * 1000000000 + end.tv_nsec - start.tv_nsec);
        fflush(stdout);
    }
    return 0;
}
