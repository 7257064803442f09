//! Traffic between the host, containers on it, and the outside world. A container here is only a namespace
//! with a server.

use crate::{Outcome, Sandbox};

impl Sandbox {
    /// Runs a script on the host (`host`), in the outside world (`outside`), or in a network namespace on the host.
    #[must_use]
    pub fn within(&self, from: &str, script: &str) -> Outcome {
        match from {
            "host" => self.sh(script),
            "outside" => self.outside(script),
            id => self.sh(&format!("ip netns exec {id} sh -c {script:?}")),
        }
    }

    /// Starts a server in the network namespace `id` that answers with `text` and the client's address.
    /// `listen` is an address for socat, such as `TCP4-LISTEN:80`.
    ///
    /// # Panics
    /// If the server does not start.
    /// When it does not start.
    #[track_caller]
    pub fn serve(&self, id: &str, listen: &str, text: &str) {
        let port = listen.rsplit_once(':').unwrap().1;
        // `>&-`: the background process must not hold the shell's own pipes.
        let script = format!(
            "ip netns exec {id} socat {listen},fork,reuseaddr SYSTEM:'read q; echo {text} $SOCAT_PEERADDR' \
             > /dev/null 2>&1 < /dev/null &
             until ip netns exec {id} ss -Hlntu | grep -q ':{port} '; do sleep 0.01; done"
        );
        self.sh(&script).ok();
    }

    /// The answer to a request to `to`, an address for socat (`TCP4:192.0.2.1:80`), sent from where
    /// [`Sandbox::within`] runs. Empty if there is no answer.
    ///
    /// # Panics
    /// If the request cannot be made.
    /// When the request cannot be made.
    #[track_caller]
    pub fn ask(&self, from: &str, to: &str) -> String {
        let limit = if to.starts_with("TCP") { ",connect-timeout=1" } else { "" };
        let ask = format!("echo ? | timeout 2 socat -t1 - {to}{limit} 2>/dev/null || true");
        self.within(from, &ask).ok().trim().to_owned()
    }
}
