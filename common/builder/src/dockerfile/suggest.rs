//! "Did you mean": finds the known word that is nearest to an unknown one.

/// ` (did you mean RUN?)`, or nothing if no known word is near. Upper and lower case are equal.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    let lower = word.to_lowercase();
    let distance = |known: &&&str| distance(&lower, &known.to_lowercase());
    let sorted = |word: &str| {
        let mut letters: Vec<char> = word.to_lowercase().chars().collect();
        letters.sort_unstable();
        letters
    };
    // Near means: one edit, two edits in a longer word, or the same letters in another order.
    let is_near = |known: &str, distance: usize| {
        distance == 1 || distance == 2 && (known.len() > 4 || sorted(known) == sorted(word))
    };
    match known.iter().min_by_key(distance) {
        Some(nearest) if is_near(nearest, distance(&nearest)) => format!(" (did you mean {nearest}?)"),
        _ => String::new(),
    }
}

/// The number of characters to insert, delete or replace (Levenshtein distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // The rest of a very long word does not matter: no known word is near it.
    for (at, x) in a.chars().take(64).enumerate() {
        let mut left_above = std::mem::replace(&mut row[0], at + 1);
        for (column, y) in b.iter().enumerate() {
            let above = row[column + 1];
            let replaced = left_above + usize::from(x != *y);
            row[column + 1] = replaced.min(above + 1).min(row[column] + 1);
            left_above = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words() {
        let known = ["RUN", "COPY", "ENTRYPOINT", "ENV"];
        for (word, expected) in [
            ("RUNN", " (did you mean RUN?)"),
            ("rnu", " (did you mean RUN?)"),
            ("runny", ""),
            ("ENTRYPIONT", " (did you mean ENTRYPOINT?)"),
            ("FOO", ""),
            ("", ""),
            ("X", ""),
        ] {
            assert_eq!(suggest(word, &known), expected, "{word}");
        }
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
