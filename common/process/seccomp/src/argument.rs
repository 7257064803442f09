//! Conditions on the arguments of a system call.
//!
//! The accumulator has 32 bits, but an argument has 64, so the upper half is compared first.

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Operator};

use crate::instruction::{ARGUMENTS, Instruction, Test, and, end, jump, load};

/// The width of the arguments of an architecture's system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// 32 bits: the upper half has no meaning.
    Half,
    /// 64 bits.
    Full,
}

/// Where a comparison leads.
#[derive(Debug, Clone, Copy)]
enum Leads {
    /// To the next instruction.
    On,
    /// Behind the whole condition: it holds.
    Holds,
    /// Behind the whole rule: it does not hold.
    Fails,
}

/// An instruction of a condition. Jumps are made once it is known how many instructions follow.
enum Part {
    Plain(Instruction),
    Jump(Test, u32, Leads, Leads),
}

/// Ends the program with `action` if all `conditions` hold. Otherwise the program continues behind these
/// instructions.
pub(crate) fn rule(conditions: &[LinuxSeccompArg], width: Width, action: u32) -> Vec<Instruction> {
    // Begin at the end, so that the instructions behind a jump are known when it is made.
    let mut reversed = vec![end(action)];
    for condition in conditions.iter().rev() {
        let holds = reversed.len();
        for part in parts(condition, width).into_iter().rev() {
            let here = reversed.len();
            // Six conditions have at most 6 * 6 instructions.
            let distance = |leads| match leads {
                Leads::On => 0,
                Leads::Holds => (here - holds) as u8,
                Leads::Fails => here as u8,
            };
            reversed.push(match part {
                Part::Plain(instruction) => instruction,
                Part::Jump(test, constant, yes, no) => jump(test, constant, distance(yes), distance(no)),
            });
        }
    }
    reversed.reverse();
    reversed
}

fn parts(condition: &LinuxSeccompArg, width: Width) -> Vec<Part> {
    use Leads::{Fails, Holds, On};
    use Part::{Jump, Plain};

    let value = condition.value();
    let offset = ARGUMENTS + 8 * condition.index() as u32;
    // `struct seccomp_data` has the machine's byte order.
    let (low, high) =
        if cfg!(target_endian = "little") { (offset, offset + 4) } else { (offset + 4, offset) };
    let (lower, upper) = (value as u32, (value >> 32) as u32);
    let is_half = width == Width::Half;
    let mut parts = Vec::new();
    match condition.op() {
        Operator::ScmpCmpMaskedEq => {
            // OCI runtime-spec: `value` is the mask, and `valueTwo` the value to compare with.
            let wanted = condition.value_two().unwrap_or_default();
            let mut half = |offset, mask, wanted| {
                parts.extend([Plain(load(offset)), Plain(and(mask)), Jump(Test::Equal, wanted, On, Fails)]);
            };
            if !is_half && (upper != 0 || wanted >> 32 != 0) {
                half(high, upper, (wanted >> 32) as u32);
            }
            half(low, lower, wanted as u32);
        }
        operator => {
            let (above, same, below) = match operator {
                Operator::ScmpCmpEq => (Fails, On, Fails),
                Operator::ScmpCmpNe => (Holds, On, Holds),
                Operator::ScmpCmpGt | Operator::ScmpCmpGe => (Holds, On, Fails),
                _ => (Fails, On, Holds),
            };
            if !is_half {
                parts.push(Plain(load(high)));
                if matches!(operator, Operator::ScmpCmpEq | Operator::ScmpCmpNe) {
                    parts.push(Jump(Test::Equal, upper, same, below));
                } else {
                    parts.push(Jump(Test::Greater, upper, above, On));
                    parts.push(Jump(Test::Equal, upper, same, below));
                }
            }
            parts.push(Plain(load(low)));
            parts.push(match operator {
                Operator::ScmpCmpEq => Jump(Test::Equal, lower, On, Fails),
                Operator::ScmpCmpNe => Jump(Test::Equal, lower, Fails, On),
                Operator::ScmpCmpGt => Jump(Test::Greater, lower, On, Fails),
                Operator::ScmpCmpGe => Jump(Test::AtLeast, lower, On, Fails),
                Operator::ScmpCmpLe => Jump(Test::Greater, lower, Fails, On),
                _ => Jump(Test::AtLeast, lower, Fails, On),
            });
        }
    }
    parts
}
