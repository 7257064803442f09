/* The keyrings of the process, one a line: `session=NUMBER`, and `user=NUMBER`, as the kernel counts keyrings; or why not. */
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    const char *names[] = {"session", "user"};
    for (int i = 0; i < 2; i++) {
        /* KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING and KEY_SPEC_USER_KEYRING (keyctl(2)); nothing is made. */
        long keyring = syscall(SYS_keyctl, 0, -3 - i, 0);
        if (keyring > 0) printf("%s=%ld\n", names[i], keyring);
        else printf("%s=%s\n", names[i], errno == ENOKEY ? "none" : "refused");
    }
}
