//! Published ports of the host are held: no process of the host can listen on one without noticing. Address translation alone
//! would take the packets away from it.
//!
//! The kernel asks a program whenever a socket is bound, so nothing of ours is in the way of the packets, and no process is
//! needed. Where it takes no program, one process beside holds the ports by sockets (`holder.rs`), as for SCTP, whose sockets the
//! kernel binds without asking. So that the kernel does not choose a published port by itself, it is reserved (`reserve.rs`).

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
