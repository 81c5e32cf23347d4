// Runs a command and prints the most memory (KiB) that a process of its had at once: the command itself or one it waited for.
// A program of its own because a process starts out with the peak of the one that made it: this one's is small.
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **arguments) {
    struct rusage usage;
    int status;
    if (count < 2)
        return 2;
    pid_t child = fork();
    if (child == 0) {
        execv(arguments[1], arguments + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return 1;
    printf("%ld\n", usage.ru_maxrss);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}
