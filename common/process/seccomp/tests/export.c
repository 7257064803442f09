// Reads a policy with one rule on each line. Writes the names that libseccomp does not know, and then the
// program that it makes.
//   default ACTION / arch NAME / rule NAME ACTION [INDEX OPERATOR VALUE VALUE]...
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    static char line[65536];
    scmp_filter_ctx filter = NULL;
    unsigned action;
    char name[64];
    while (fgets(line, sizeof line, stdin)) {
        int read = 0;
        if (sscanf(line, "default %u", &action) == 1) {
            filter = seccomp_init(action);
            if (!filter || seccomp_arch_remove(filter, SCMP_ARCH_NATIVE)) return 1;
        } else if (sscanf(line, "arch %u", &action) == 1) {
            if (seccomp_arch_add(filter, action)) return 2;
        } else if (sscanf(line, "rule %63s %u%n", name, &action, &read) == 2) {
            struct scmp_arg_cmp conditions[6];
            unsigned count = 0, index, operator;
            unsigned long long a, b;
            int more = 0;
            for (char *rest = line + read; sscanf(rest, "%u %u %llu %llu%n", &index, &operator, &a, &b, &more) == 4; rest += more)
                conditions[count++] = (struct scmp_arg_cmp){index, operator, a, b};
            int call = seccomp_syscall_resolve_name(name);
            if (call == __NR_SCMP_ERROR) {
                printf("%s\n", name);
                continue;
            }
            int error = seccomp_rule_add_array(filter, action, call, count, conditions);
            if (error) { fprintf(stderr, "%s: %s\n", name, strerror(-error)); return 3; }
        }
    }
    printf("\n");
    fflush(stdout);
    return seccomp_export_bpf(filter, STDOUT_FILENO) ? 4 : 0;
}
