//! The host's own firewall, where it stops the packets of a bridge.
//!
//! A packet that is forwarded passes every base chain at the hook `forward`, and one that a single chain drops is gone: what
//! the other chains say does not matter, ours included. So a rule that accepts the packets of a bridge helps only in the very
//! chain that drops them. Such chains come from Docker, ufw and others (iptables: the chain FORWARD with the policy DROP), from
//! a rule set of nftables, and from firewalld.
//!
//! [`barriers`] reads the chains and follows the packets of a bridge through them (`walk`). [`FirewallOperation`] puts a rule in
//! front of what drops them, with the mark `stave <bridge>` as its comment: by nf_tables messages, which is also what iptables
//! has used since 1.8 (`nftables`); by `setsockopt` for its older tables (`iptables`); by D-Bus for firewalld, whose table only
//! firewalld itself may change (`firewalld`).
//!
//! Such a rule opens nothing to others. Whoever comes to the bridge by another interface still meets the chain `forward` of the
//! table `inet stave`, which lets through what was published.

mod barrier;
mod dbus;
mod firewalld;
mod iptables;
mod nftables;
mod operation;
mod walk;

pub use barrier::{Barrier, Family, Firewall, InvalidFirewall};
pub use operation::{FirewallOperation, barriers};
