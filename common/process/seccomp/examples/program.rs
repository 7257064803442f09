//! Writes the kernel's program of Docker's default policy to standard output, for a container with these
//! capabilities. `bwrap --seccomp` and `prctl(PR_SET_SECCOMP)` take this form.
//!
//! ```sh
//! cargo run -p seccomp --example program CAP_CHOWN CAP_KILL > policy.bpf
//! ```

use std::io::{Write, stdout};

use seccomp::{Conditions, Profile, Program};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy = Profile::docker()?.resolve(&Conditions::of_this_machine(std::env::args().skip(1)))?;
    let mut output = stdout().lock();
    for instruction in Program::compile(&policy)?.instructions() {
        output.write_all(&instruction.code.to_ne_bytes())?;
        output.write_all(&[instruction.jt, instruction.jf])?;
        output.write_all(&instruction.k.to_ne_bytes())?;
    }
    Ok(output.flush()?)
}
