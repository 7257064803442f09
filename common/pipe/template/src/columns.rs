//! Columns of a table, as Go's `text/tabwriter` aligns them for Docker.

/// The gap between two columns, in spaces.
const GAP: usize = 3;
/// The width of the narrowest column with its gap, in characters.
const NARROWEST: usize = 10;

/// Aligns lines at their tabs. A column is a run of lines that have a tab in it: its cells end with a tab, so the last cell of a
/// line is in no column.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let most = lines.iter().map(|cells| cells.len() - 1).max().unwrap_or(0);
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    for column in 0..most {
        let mut first = 0;
        while first < lines.len() {
            let has = |line: &Vec<&str>| line.len() - 1 > column;
            let run = lines[first..].iter().take_while(|line| has(line)).count();
            let cells = lines[first..first + run].iter().map(|line| line[column].chars().count());
            let width = (cells.max().unwrap_or(0) + GAP).max(NARROWEST);
            widths[first..first + run].iter_mut().for_each(|line| line[column] = width);
            first += run.max(1);
        }
    }
    let mut aligned = String::new();
    for (cells, widths) in lines.iter().zip(&widths) {
        for (column, cell) in cells.iter().enumerate() {
            match widths.get(column) {
                Some(width) => aligned += &format!("{cell:<width$}"),
                None => aligned += cell,
            }
        }
        aligned.push('\n');
    }
    aligned
}
