//! What `/proc` shows of this program's arguments and environment.

use std::{fs, io};

/// Clears the arguments and the environment, except for the program's name. A process that stays, or that
/// others in a container can see, must not show them. The process must have one thread, and must not read
/// them later.
///
/// # Errors
/// When `/proc` does not say where they are.
pub(crate) fn forget_arguments() -> io::Result<()> {
    let field = super::own_stat()?;
    // arg_start, arg_end, env_start, env_end.
    let [first, end, env_start, env_end] = [48, 49, 50, 51].map(field);
    let name = fs::read("/proc/self/cmdline")?.iter().position(|byte| *byte == 0).unwrap_or_default();
    for (start, end) in [(first + name, end), (env_start, env_end)] {
        if first != 0 && env_start != 0 && start < end {
            // SAFETY: the kernel put these strings at the top of this process's own stack. Zeros keep them strings.
            unsafe { std::ptr::write_bytes(start as *mut u8, 0, end - start) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_name_is_left() {
        let child = crate::sys::fork(|| {
            forget_arguments().unwrap();
            let line = fs::read("/proc/self/cmdline").unwrap();
            let name = line.iter().position(|byte| *byte == 0).unwrap();
            let environment = fs::read("/proc/self/environ").unwrap();
            u8::from(name == 0 || line[name..].iter().chain(&environment).any(|byte| *byte != 0))
        })
        .unwrap();
        let status = nix::sys::wait::waitpid(child, None).unwrap();
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
    }
}
