use super::*;

const BOTH: [&Layout; 2] = [&V4, &V6];

/// Makes entries of one layout.
#[derive(Clone, Copy)]
struct Make(&'static Layout);

impl Make {
    fn put(self, bytes: &mut [u8], at: usize, length: usize) {
        bytes[at..at + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    }

    fn size(self) -> i32 {
        (self.0.entry + STANDARD) as i32
    }

    /// An entry for all packets, with this verdict.
    fn entry(self, verdict: i32) -> Vec<u8> {
        let Layout { entry, in_name, protocol, target_at, next_at, .. } = *self.0;
        let mut bytes = Entry::letting_through(self.0, "", false).bytes;
        bytes.drain(entry..entry + PART + COMMENT);
        bytes[in_name..protocol].fill(0);
        self.put(&mut bytes, target_at, entry);
        self.put(&mut bytes, next_at, entry + STANDARD);
        put(&mut bytes, entry + PART, verdict.cast_unsigned());
        bytes
    }

    fn head(self, name: &str) -> Vec<u8> {
        let Layout { entry, next_at, .. } = *self.0;
        let mut bytes = self.entry(0);
        bytes[entry + 2..entry + 7].copy_from_slice(b"ERROR");
        bytes.truncate(entry + PART);
        bytes.extend(padded(name, 32));
        let length = bytes.len();
        self.put(&mut bytes, entry, length - entry);
        self.put(&mut bytes, next_at, length);
        bytes
    }
}

/// INPUT, FORWARD and OUTPUT with their policies. FORWARD has a rule that continues, and one
/// that jumps to the chain `more`.
fn table(layout: &'static Layout) -> Table {
    let make = Make(layout);
    let (size, entry, head) = (make.size(), |verdict| make.entry(verdict), |name| make.head(name));
    let begin_of_more = 6 * size + head("more").len() as i32;
    let bytes = [
        entry(ACCEPT),
        entry(2 * size),
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
        put(&mut info, TABLE_NAME + 4 + 4 * hook, (begin * size).cast_unsigned());
        put(&mut info, TABLE_NAME + 4 + 4 * (HOOKS + hook), (end * size).cast_unsigned());
    }
    Table::read(layout, "filter", &info, &bytes).unwrap()
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
    Table::read(table.layout, "filter", &info, &bytes).unwrap()
}

#[test]
fn a_table_is_read() {
    for (layout, program) in BOTH.into_iter().zip(["iptables-legacy", "ip6tables-legacy"]) {
        let (forward, chains) = table(layout).chains().unwrap();
        assert_eq!(forward.forward, Some(Policy::Drop));
        let verdicts: Vec<_> = forward.rules.iter().map(|rule| rule.verdict.clone()).collect();
        assert_eq!(verdicts, [Verdict::Continue, Verdict::Jump("more".into())]);
        let more = chains.iter().find(|chain| chain.name == "more").unwrap();
        assert_eq!(more.rules.iter().map(|rule| rule.verdict.clone()).collect::<Vec<_>>(), [Verdict::Return]);
        assert_eq!(
            table(layout).barrier("br0", Firewall::Auto).unwrap().to_string(),
            format!("chain FORWARD of table filter of {program}")
        );
    }
}

#[test]
fn rules_are_added_and_removed_at_any_place_and_all_that_points_behind_them_moves() {
    for (layout, place) in BOTH.into_iter().flat_map(|layout| [None, Some(1), Some(2)].map(|at| (layout, at)))
    {
        let before = table(layout);
        let barrier =
            Barrier::Legacy { v6: layout.v6, table: "filter".into(), before: place, from: true, to: true };
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
    let before = table(&V6);
    let barrier =
        Barrier::Legacy { v6: true, table: "filter".into(), before: Some(1), from: true, to: false };
    let with = before.letting_through("br0", &barrier).unwrap();
    let counters: Vec<u8> = (0..before.entries.len() as u8).flat_map(|number| [number; COUNTER]).collect();
    let counts = with.counts(&before, &counters);
    let firsts: Vec<u8> = counts[BEFORE_ENTRIES..].chunks(COUNTER).map(|count| count[0]).collect();
    assert_eq!(firsts, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn bytes_that_mean_nothing_are_no_table() {
    let info = padded("filter", INFO);
    assert_eq!(Table::read(&V4, "filter", &info, &[7; 300]), None);
    assert_eq!(Table::read(&V6, "filter", &info, &[0; 5]), None);
    assert_eq!(Table::read(&V4, "filter", &[], &[]), None);
    assert_eq!(Table::read(&V4, "filter", &info, &[]).unwrap().chains(), None, "no hook");
}
