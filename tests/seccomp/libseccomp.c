/* What libseccomp makes of a profile: rules on standard input, the compiled program on standard output.
 *   default ACTION            arch NAME            rule ACTION CALL [INDEX OP VALUE VALUE2]...
 * ACTION is a SECCOMP_RET_ value, OP the number of an scmp_compare. Calls that libseccomp does not know are left out and
 * named on standard error. */
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void fail(const char *what, const char *line) {
    fprintf(stderr, "%s: %s\n", what, line);
    exit(1);
}

int main(void) {
    char line[4096];
    scmp_filter_ctx filter = NULL;
    while (fgets(line, sizeof line, stdin)) {
        char *rest = NULL;
        char *word = strtok_r(line, " \n", &rest);
        if (!word)
            continue;
        if (!strcmp(word, "default")) {
            filter = seccomp_init((uint32_t)strtoul(strtok_r(NULL, " \n", &rest), NULL, 0));
            if (!filter)
                fail("default", "refused");
        } else if (!strcmp(word, "arch")) {
            char *name = strtok_r(NULL, " \n", &rest);
            uint32_t arch = seccomp_arch_resolve_name(name);
            int result = seccomp_arch_add(filter, arch);
            if (!arch || (result && result != -17))
                fail("arch", name);
        } else if (!strcmp(word, "rule")) {
            uint32_t action = (uint32_t)strtoul(strtok_r(NULL, " \n", &rest), NULL, 0);
            char *name = strtok_r(NULL, " \n", &rest);
            struct scmp_arg_cmp args[6];
            unsigned count = 0;
            for (char *index; count < 6 && (index = strtok_r(NULL, " \n", &rest)); count++) {
                args[count].arg = (unsigned)strtoul(index, NULL, 0);
                args[count].op = (enum scmp_compare)strtoul(strtok_r(NULL, " \n", &rest), NULL, 0);
                args[count].datum_a = strtoull(strtok_r(NULL, " \n", &rest), NULL, 0);
                args[count].datum_b = strtoull(strtok_r(NULL, " \n", &rest), NULL, 0);
            }
            int number = seccomp_syscall_resolve_name(name);
            if (number == __NR_SCMP_ERROR) {
                fprintf(stderr, "unknown %s\n", name);
                continue;
            }
            int result = seccomp_rule_add_array(filter, action, number, count, args);
            if (result && result != -17)
                fail(strerror(-result), name);
        } else {
            fail("not understood", word);
        }
    }
    return filter && !seccomp_export_bpf(filter, STDOUT_FILENO) ? 0 : 1;
}
