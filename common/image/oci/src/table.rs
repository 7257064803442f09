//! Tables as Docker's commands print them.

use operation::printable_word;

/// The gap between two columns, in spaces.
const GAP: usize = 3;
/// The width of the narrowest column with its gap, in characters.
const NARROWEST: usize = 10;

/// Formats lines of text with aligned columns. Each row has as many cells as `heads`. Control characters become
/// `?`: an image may have any.
pub fn format(heads: &[&str], rows: &[Vec<String>]) -> String {
    let printable = |row: &Vec<String>| row.iter().map(|cell| printable_word(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(printable).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let head = heads[column].chars().count();
        (cells.max().unwrap_or(0).max(head) + GAP).max(NARROWEST)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: String =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.trim_end().to_owned() + "\n"
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(heads.to_vec())).chain(body).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a-long-name".to_owned(), "1".to_owned()], vec!["b".to_owned(), "22".to_owned()]];
        assert_eq!(
            super::format(&["NAME", "N"], &rows),
            "NAME          N\na-long-name   1\nb             22\n"
        );
    }
}
