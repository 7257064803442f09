//! Lets a bridge's packets pass the host's own firewall.
//!
//! A forwarded packet passes every base chain at the hook `forward`. If one chain drops it, the
//! packet is lost, whatever the other chains say, including ours. So a rule that accepts the
//! packets of a bridge must be in the very chain that drops them. Such chains come from Docker, ufw
//! and others (iptables: the chain FORWARD with the policy DROP), from an nftables ruleset, and
//! from firewalld.
//!
//! [`barriers`] reads the chains and traces the packets of a bridge through them (`walk`).
//! [`FirewallOperation`] adds a rule before the one that drops them, with the comment `stave
//! <bridge>` as its mark. It uses nf_tables messages, which iptables has used too since 1.8
//! (`nftables`); `setsockopt` for legacy iptables tables (`iptables`); and D-Bus for firewalld,
//! whose table only firewalld may change (`firewalld`).
//!
//! Such a rule does not expose containers. Packets to the bridge from another interface still pass
//! the chain `forward` of the table `inet stave`, which accepts only what was published.

mod barrier;
mod dbus;
mod firewalld;
mod iptables;
mod nftables;
mod operation;
mod walk;

pub use barrier::{Barrier, Family, Firewall, InvalidFirewall};
pub use operation::{FirewallOperation, barriers};
