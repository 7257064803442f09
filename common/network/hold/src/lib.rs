//! Holds published ports of the host, so that no process of the host can bind one. Address
//! translation alone would silently take its packets.
//!
//! The kernel runs a BPF program whenever a socket is bound. So nothing is added to the path of
//! packets, and no process is needed. If the kernel accepts no program, and for SCTP, whose sockets
//! it binds without running one, a process holds the ports with sockets (`holder.rs`). Published
//! ports are also reserved, so that the kernel does not choose one as a local port (`reserve.rs`).

mod bound;
mod holder;
mod operation;
mod ports;
mod program;
mod reserve;

pub use bound::{is_bound, listed};
pub use operation::HoldOperation;
pub use ports::{Port, Ports};
pub use reserve::{Reserved, chosen_from};
