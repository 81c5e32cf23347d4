/* The least that a container takes: clone3 with all namespaces, mounts, pivot_root, cgroups and exec of a static program.
 * usage: floor ROOTFS PROGRAM [CGROUP_DIRECTORY ...] */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(125);
    }
}

static void join(const char *directory) {
    char path[4096];
    snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    must(file, path);
    must(write(file, "0", 1), path);
    close(file);
}

static void become(const char *root, char *program, char **groups) {
    for (; *groups; groups++)
        join(*groups);
    must(unshare(CLONE_NEWCGROUP), "unshare");
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    must(mount(root, root, NULL, MS_BIND, NULL), "bind");
    must(chdir(root), "chdir");
    must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"), "dev");
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    must(chdir("/"), "chdir");
    char *arguments[] = {program, NULL}, *environment[] = {NULL};
    must(execve(program, arguments, environment), "exec");
}

int main(int count, char **given) {
    if (count < 3)
        return 64;
    char **groups = given + 3;
    for (char **group = groups; *group; group++)
        must(mkdir(*group, 0755), *group);
    struct clone_args args = {
        .flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
        .exit_signal = SIGCHLD,
    };
    long child = syscall(SYS_clone3, &args, sizeof args);
    must(child, "clone3");
    if (child == 0)
        become(given[1], given[2], groups);
    int status;
    must(waitpid(child, &status, 0), "wait");
    for (char **group = groups; *group; group++)
        must(rmdir(*group), *group);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
