//! The picture of a build on a terminal: a line for each step, as BuildKit's, with the last output of the
//! steps that are running.

use std::time::{Duration, Instant};

use super::{events::Event, harmless};

/// How many lines of a running step's output are shown.
const TAIL: usize = 6;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Done,
    Cached,
    Failed,
    /// Another step failed meanwhile.
    Canceled,
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Self::Done => "",
            Self::Cached => "CACHED ",
            Self::Failed => "ERROR ",
            Self::Canceled => "CANCELED ",
        }
    }

    /// The color of the line, as the number of ECMA-48.
    fn color(self) -> u8 {
        match self {
            Self::Done | Self::Cached => 34,
            Self::Failed => 31,
            Self::Canceled => 33,
        }
    }
}

#[derive(Debug)]
struct Step {
    stage: Option<String>,
    number: u64,
    head: String,
    begin: Instant,
    end: Option<(Duration, Mark)>,
    /// The last lines of the command's output.
    tail: Vec<String>,
}

impl Step {
    fn is_running(&self) -> bool {
        self.end.is_none()
    }

    fn line(&self, now: Instant, size: &Size) -> String {
        let (time, mark) = self.end.map_or((now - self.begin, None), |(time, mark)| (time, Some(mark)));
        let left = format!(" => {}{}", mark.map_or("", Mark::word), self.head);
        let line = fit(&left, &format!("{:.1}s", time.as_secs_f64()), size.columns);
        match mark.filter(|_| size.colors) {
            Some(mark) => format!("\x1b[{}m{line}\x1b[0m", mark.color()),
            None => line,
        }
    }

    fn tail(&self) -> impl Iterator<Item = String> {
        self.tail.iter().map(|line| format!(" => => # {}", harmless(line)))
    }
}

/// The terminal that the picture is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) colors: bool,
}

/// The steps of a build so far.
#[derive(Debug)]
pub(super) struct Frame {
    begin: Instant,
    steps: Vec<Step>,
    /// How many steps are on the terminal for good.
    settled: usize,
    /// How many steps the build has.
    total: u64,
    /// Whether nothing of the build is left to do.
    finished: bool,
}

impl Frame {
    pub(super) fn new(now: Instant) -> Self {
        Self { begin: now, steps: Vec::new(), settled: 0, total: 0, finished: false }
    }

    /// Whether a step is running.
    pub(super) fn is_running(&self) -> bool {
        self.steps.iter().any(Step::is_running)
    }

    /// Whether there is something that is not on the terminal for good.
    pub(super) fn has_more(&self) -> bool {
        self.settled < self.steps.len()
    }

    /// The running step of a stage with this number.
    fn running(&mut self, stage: Option<&str>, number: u64) -> Option<&mut Step> {
        let is_it =
            |step: &&mut Step| step.is_running() && step.stage.as_deref() == stage && step.number == number;
        self.steps.iter_mut().rev().find(is_it)
    }

    /// Takes what an event says about a step.
    pub(super) fn take(&mut self, event: &Event, now: Instant) {
        let stage = event.stage.as_deref();
        match event.kind.as_str() {
            "begin" => {
                let stage_name = stage.map(|name| format!("{name} ")).unwrap_or_default();
                let text = event.text.lines().next().unwrap_or_default();
                let head = harmless(&format!("[{stage_name}{}/{}] {text}", event.step, event.of));
                let (stage, number) = (event.stage.clone(), event.step);
                self.steps.push(Step { stage, number, head, begin: now, end: None, tail: Vec::new() });
                self.total = self.total.max(event.of).max(self.steps.len() as u64);
            }
            "end" | "failed" => {
                let mark = match (event.kind.as_str(), event.cached) {
                    ("failed", _) => Mark::Failed,
                    (_, true) => Mark::Cached,
                    (_, false) => Mark::Done,
                };
                if let Some(step) = self.running(stage, event.step) {
                    step.end = Some((now - step.begin, mark));
                }
            }
            _ => {}
        }
    }

    /// The numbers of the running steps, with their stages.
    pub(super) fn all_running(&self) -> Vec<(Option<String>, u64)> {
        let running = self.steps.iter().filter(|step| step.is_running());
        running.map(|step| (step.stage.clone(), step.number)).collect()
    }

    /// Sets the last output of a running step.
    pub(super) fn say(&mut self, (stage, number): &(Option<String>, u64), output: &str) {
        let Some(step) = self.running(stage.as_deref(), *number) else { return };
        // What a progress bar has overwritten is gone.
        let shown =
            |line: &str| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned();
        let lines: Vec<String> = output.lines().map(shown).filter(|line| !line.trim().is_empty()).collect();
        step.tail = lines[lines.len().saturating_sub(TAIL)..].to_vec();
    }

    /// The build is over. Steps that still run have failed, or were ended because another one failed.
    pub(super) fn end(&mut self, event: &Event, now: Instant) {
        self.finished = event.finished && !event.failed;
        let is_known = self.steps.iter().any(|step| step.end.is_some_and(|(_, mark)| mark == Mark::Failed));
        let mark = match (event.failed, is_known) {
            (false, _) => Mark::Done,
            (true, false) => Mark::Failed,
            (true, true) => Mark::Canceled,
        };
        for step in self.steps.iter_mut().filter(|step| step.is_running()) {
            step.end = Some((now - step.begin, mark));
        }
    }

    fn head(&self, now: Instant, size: &Size) -> String {
        let done = self.steps.iter().filter(|step| !step.is_running()).count() as u64;
        let finished = if self.finished && done == self.total { " FINISHED" } else { "" };
        let seconds = (now - self.begin).as_secs_f64();
        fit(&format!("[+] Building {seconds:.1}s ({done}/{}){finished}", self.total), "", size.columns)
    }

    /// The lines to show while the build runs. They fit on the terminal: the running steps come first, then
    /// their output, then the last ones of the others.
    pub(super) fn lines(&self, now: Instant, size: &Size) -> Vec<String> {
        let open = &self.steps[self.settled..];
        let mut room = size.rows.saturating_sub(2).max(1);
        let running = open.iter().filter(|step| step.is_running()).count().min(room);
        room -= running;
        let tails: usize = open.iter().filter(|step| step.is_running()).map(|step| step.tail.len()).sum();
        let with_tails = tails <= room;
        room -= if with_tails { tails } else { 0 };
        let ended = open.iter().filter(|step| !step.is_running()).count();
        let mut hidden = (ended.saturating_sub(room), open.len() - ended - running);
        let mut lines = vec![self.head(now, size)];
        for step in open {
            let hide = if step.is_running() { &mut hidden.1 } else { &mut hidden.0 };
            if *hide > 0 {
                *hide -= 1;
                continue;
            }
            lines.push(step.line(now, size));
            if step.is_running() && with_tails {
                lines.extend(step.tail().map(|line| fit(&line, "", size.columns)));
            }
        }
        lines
    }

    /// The lines that stay on the terminal: all steps that are not there yet. Those that are running come
    /// again.
    pub(super) fn settle(&mut self, now: Instant, size: &Size) -> Vec<String> {
        let mut lines = vec![self.head(now, size)];
        let (ended, running): (Vec<Step>, _) =
            self.steps.split_off(self.settled).into_iter().partition(|step| !step.is_running());
        lines.extend(ended.iter().map(|step| step.line(now, size)));
        self.steps.extend(ended);
        self.settled = self.steps.len();
        self.steps.extend(running);
        lines
    }
}

/// A line as wide as the terminal, with `right` at its end.
fn fit(left: &str, right: &str, columns: usize) -> String {
    let room = columns.saturating_sub(right.len() + 1);
    let left: String = left.chars().take(room).collect();
    match right {
        "" => left,
        right => format!("{left}{}{right}", " ".repeat(room.saturating_sub(left.chars().count()) + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 30, rows: 8, colors: false };

    fn event(text: &str) -> Event {
        Event::parse(text).unwrap()
    }

    fn frame(now: Instant, events: &[&str]) -> Frame {
        let mut frame = Frame::new(now);
        events.iter().for_each(|text| frame.take(&event(text), now));
        frame
    }

    const FAILED: &str = r#"{"event":"over","failed":true,"finished":true}"#;
    const BEGUN: &str = r#"{"event":"begin","step":2,"of":3,"text":"RUN make\nall"}"#;

    #[test]
    fn each_step_has_a_line_with_its_time() {
        let begin = Instant::now();
        let mut frame = frame(
            begin,
            &[
                r#"{"event":"begin","step":1,"of":3,"text":"FROM a"}"#,
                r#"{"event":"end","step":1,"cached":true}"#,
                BEGUN,
            ],
        );
        frame.say(&(None, 2), "one\n\nbar 1%\rbar 2%\r\nl\x1b[2Jast");
        let later = begin + Duration::from_millis(1240);
        assert_eq!(
            frame.lines(later, &SIZE),
            [
                "[+] Building 1.2s (1/3)",
                " => CACHED [1/3] FROM a   0.0s",
                " => [2/3] RUN make        1.2s",
                " => => # one",
                " => => # bar 2%",
                " => => # l [2Jast",
            ]
        );
        frame.take(&event(r#"{"event":"failed","step":2}"#), later);
        frame.end(&event(FAILED), later);
        let last = " => ERROR [2/3] RUN make  1.2s";
        assert_eq!(frame.lines(later, &SIZE)[2], last);
        assert_eq!(frame.lines(later, &Size { colors: true, ..SIZE })[2], format!("\x1b[31m{last}\x1b[0m"));
    }

    #[test]
    fn what_is_running_is_shown_if_the_terminal_is_small() {
        let now = Instant::now();
        let mut frame = Frame::new(now);
        for number in 1..=9 {
            frame.take(&event(&format!(r#"{{"event":"begin","step":{number},"of":9,"text":"A"}}"#)), now);
            if !matches!(number, 2 | 9) {
                frame.take(&event(&format!(r#"{{"event":"end","step":{number}}}"#)), now);
            }
        }
        frame.say(&(None, 9), "1\n2\n3\n4\n5\n6\n7");
        let numbers = |lines: &[String]| -> Vec<String> {
            lines[1..].iter().filter_map(|line| line.get(5..8)).map(str::to_owned).collect()
        };
        assert_eq!(numbers(&frame.lines(now, &SIZE)), ["2/9", "5/9", "6/9", "7/9", "8/9", "9/9"]);
        assert_eq!(frame.lines(now, &Size { rows: 3, ..SIZE }).len(), 2);
        assert_eq!(frame.lines(now, &Size { rows: 30, ..SIZE }).len(), 16, "and six lines of output");
        assert_eq!(frame.settle(now, &SIZE).len(), 8, "the head and all that have ended");
        assert_eq!(numbers(&frame.lines(now, &SIZE)), ["2/9", "9/9"]);
        let wide = Size { columns: 60, ..SIZE };
        frame.end(&event(r#"{"event":"over","finished":true}"#), now);
        assert!(frame.settle(now, &wide)[0].ends_with("(9/9) FINISHED") && !frame.has_more());
    }

    #[test]
    fn a_build_is_finished_when_nothing_is_left_to_do() {
        let now = Instant::now();
        let begun = r#"{"event":"begin","step":1,"of":1,"text":"A"}"#;
        let mut frame = frame(now, &[begun, r#"{"event":"end","step":1}"#]);
        let head = |frame: &Frame| frame.lines(now, &SIZE)[0].clone();
        assert_eq!(head(&frame), "[+] Building 0.0s (1/1)", "the image is not written yet");
        for over in [FAILED, r#"{"event":"over"}"#] {
            frame.end(&event(over), now);
            assert_eq!(head(&frame), "[+] Building 0.0s (1/1)", "{over}");
        }
    }

    #[test]
    fn steps_of_stages_side_by_side_are_told_apart() {
        let now = Instant::now();
        let mut frame = frame(
            now,
            &[
                r#"{"event":"begin","step":1,"of":2,"text":"A","stage":"x"}"#,
                r#"{"event":"begin","step":1,"of":2,"text":"B","stage":"y"}"#,
                r#"{"event":"failed","step":1,"stage":"y"}"#,
            ],
        );
        assert_eq!(frame.all_running(), [(Some("x".to_owned()), 1)]);
        frame.end(&event(FAILED), now);
        let lines = frame.settle(now, &SIZE);
        assert_eq!(
            lines,
            ["[+] Building 0.0s (2/2)", " => CANCELED [x 1/2] A    0.0s", " => ERROR [y 1/2] B       0.0s",]
        );
    }
}
