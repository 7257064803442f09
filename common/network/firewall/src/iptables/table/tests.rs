use super::*;

/// An entry for all packets, with this verdict.
fn entry(verdict: i32) -> Vec<u8> {
    let mut bytes = Entry::letting_through("", false).bytes;
    bytes.drain(ENTRY..ENTRY + PART + COMMENT);
    bytes[IN_NAME..PROTOCOL].fill(0);
    bytes[TARGET_AT..TARGET_AT + 2].copy_from_slice(&(ENTRY as u16).to_ne_bytes());
    bytes[NEXT_AT..NEXT_AT + 2].copy_from_slice(&((ENTRY + STANDARD) as u16).to_ne_bytes());
    put(&mut bytes, ENTRY + PART, verdict.cast_unsigned());
    bytes
}

const SIZE: i32 = (ENTRY + STANDARD) as i32;

fn head(name: &str) -> Vec<u8> {
    let mut bytes = entry(0);
    bytes[ENTRY + 2..ENTRY + 7].copy_from_slice(b"ERROR");
    bytes.truncate(ENTRY + PART);
    bytes.extend(padded(name, 32));
    let length = bytes.len() as u16;
    bytes[ENTRY..ENTRY + 2].copy_from_slice(&(length - ENTRY as u16).to_ne_bytes());
    bytes[NEXT_AT..NEXT_AT + 2].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// INPUT, FORWARD and OUTPUT with their policies. FORWARD has a rule that continues, and one
/// that jumps to the chain `more`.
fn table() -> Table {
    let begin_of_more = 6 * SIZE + head("more").len() as i32;
    let bytes = [
        entry(ACCEPT),
        entry(2 * SIZE),
        entry(begin_of_more),
        entry(DROP),
        entry(begin_of_more),
        entry(ACCEPT),
        head("more"),
        entry(RETURN),
        head("ERROR"),
    ]
    .concat();
    let mut info = padded("filter", INFO);
    put(&mut info, TABLE_NAME, 0b1110);
    for (hook, (begin, end)) in [(1, (0, 0)), (2, (1, 3)), (3, (4, 5))] {
        put(&mut info, TABLE_NAME + 4 + 4 * hook, (begin * SIZE).cast_unsigned());
        put(&mut info, TABLE_NAME + 4 + 4 * (HOOKS + hook), (end * SIZE).cast_unsigned());
    }
    Table::read("filter", &info, &bytes).unwrap()
}

/// The table as the kernel would return it.
fn read_again(table: &Table) -> Table {
    let mut info = padded("filter", INFO);
    put(&mut info, TABLE_NAME, table.hooks);
    for hook in 0..HOOKS {
        put(&mut info, TABLE_NAME + 4 + 4 * hook, table.begins[hook]);
        put(&mut info, TABLE_NAME + 4 + 4 * (HOOKS + hook), table.ends[hook]);
    }
    let bytes: Vec<u8> = table.entries.iter().flat_map(|entry| entry.bytes.clone()).collect();
    Table::read("filter", &info, &bytes).unwrap()
}

#[test]
fn a_table_is_read() {
    let (forward, chains) = table().chains().unwrap();
    assert_eq!(forward.forward, Some(Policy::Drop));
    let verdicts: Vec<_> = forward.rules.iter().map(|rule| rule.verdict.clone()).collect();
    assert_eq!(verdicts, [Verdict::Continue, Verdict::Jump("more".into())]);
    let more = chains.iter().find(|chain| chain.name == "more").unwrap();
    assert_eq!(more.rules.iter().map(|rule| rule.verdict.clone()).collect::<Vec<_>>(), [Verdict::Return]);
    assert_eq!(
        table().barrier("br0", Firewall::Auto).unwrap().to_string(),
        "chain FORWARD of table filter of iptables-legacy"
    );
}

#[test]
fn rules_are_added_and_removed_at_any_place_and_all_that_points_behind_them_moves() {
    let before = table();
    for place in [None, Some(1), Some(2)] {
        let barrier = Barrier::Legacy { table: "filter".into(), before: place, from: true, to: true };
        let with = read_again(&before.letting_through("br0", &barrier).unwrap());
        let (forward, chains) = with.chains().unwrap();
        let at = place.map_or(2, |number| number as usize - 1);
        let is_ours: Vec<_> = forward.rules.iter().map(|rule| rule.is_ours("br0")).collect();
        assert_eq!(is_ours.iter().filter(|ours| **ours).count(), 2, "{place:?}");
        assert!(is_ours[at] && is_ours[at + 1], "{place:?}: {is_ours:?}");
        let others: Vec<_> =
            forward.rules.iter().filter(|rule| !rule.is_ours("br0")).map(|rule| &rule.verdict).collect();
        assert_eq!(others, [&Verdict::Continue, &Verdict::Jump("more".into())], "{place:?}");
        assert_eq!(chains.iter().find(|chain| chain.name == "more").unwrap().rules.len(), 1);
        assert_eq!(with.entries[with.at(with.ends[FORWARD]).unwrap()].standard(), Some(DROP));
        let begin_of_output = with.at(with.begins[3]).unwrap();
        assert_eq!(with.entries[begin_of_output].verdict(&[]), Verdict::Continue, "no chain is known here");
        let without = read_again(&with.without("br0").unwrap());
        assert_eq!(without, before, "{place:?}");
        assert_eq!(without.without("br0"), None);
    }
}

#[test]
fn counts_go_with_their_rules() {
    let before = table();
    let barrier = Barrier::Legacy { table: "filter".into(), before: Some(1), from: true, to: false };
    let with = before.letting_through("br0", &barrier).unwrap();
    let counters: Vec<u8> = (0..before.entries.len() as u8).flat_map(|number| [number; COUNTER]).collect();
    let counts = with.counts(&before, &counters);
    let firsts: Vec<u8> = counts[BEFORE_ENTRIES..].chunks(COUNTER).map(|count| count[0]).collect();
    assert_eq!(firsts, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn bytes_that_mean_nothing_are_no_table() {
    let info = padded("filter", INFO);
    assert_eq!(Table::read("filter", &info, &[7; 300]), None);
    assert_eq!(Table::read("filter", &info, &[0; 5]), None);
    assert_eq!(Table::read("filter", &[], &[]), None);
    assert_eq!(Table::read("filter", &info, &[]).unwrap().chains(), None, "no hook");
}
