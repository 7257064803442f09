//! A container's counters at one moment.

use std::{fs, time::Instant};

use cgroup::Current;
use document::Id;
use life::Container;
use serde_json::{Value, json};
use toolkit::{listing::Row, prelude::*, rows};

/// One reading of a container's counters.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) id: Id,
    name: Id,
    when: Instant,
    used: Current,
    /// Bytes received and bytes sent.
    network: Option<(u64, u64)>,
}

impl Sample {
    pub(crate) fn of(container: &Container) -> Result<Self> {
        let limits = container.limits();
        let used = container.cgroup().map(|path| Current::of(path, limits)).transpose()?.unwrap_or_default();
        let network = network(container.identity().pid);
        Ok(Self { id: container.id.clone(), name: container.called(), when: Instant::now(), used, network })
    }

    /// Of a container that does not run: it uses nothing.
    pub(crate) fn of_ended(container: &Container) -> Self {
        Self {
            id: container.id.clone(),
            name: container.called(),
            when: Instant::now(),
            used: Current::default(),
            network: None,
        }
    }

    /// The row. The processor usage needs an earlier sample.
    pub(crate) fn row(&self, before: Option<&Self>) -> Value {
        let percent = before.and_then(|before| {
            let used = self.used.cpu_time?.checked_sub(before.used.cpu_time?)? as f64;
            let passed = self.when.duration_since(before.when).as_micros() as f64;
            (passed > 0.0).then(|| rounded(used * 100.0 / passed))
        });
        let limit = self.used.memory_limit.or_else(machine_memory);
        let share = self
            .used
            .memory
            .zip(limit)
            .map(|(memory, limit)| rounded(memory as f64 * 100.0 / limit.max(1) as f64));
        json!({
            "id": self.id,
            "name": self.name,
            "cpuPercent": percent,
            "cpuTime": self.used.cpu_time,
            "memory": self.used.memory,
            "memoryLimit": limit,
            "memoryPercent": share,
            "received": self.network.map(|(received, _)| received),
            "sent": self.network.map(|(_, sent)| sent),
            "pids": self.used.pids,
        })
    }
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The machine's memory, in bytes.
fn machine_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|size| size << 10)
}

/// Bytes received and sent by all interfaces except `lo` of a process's network namespace (proc_pid_net(5)).
fn network(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let mut sum = (0, 0);
    for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if let (false, [received, .., _, _, _, _, _, _, _]) = (name.trim() == "lo", counters.as_slice()) {
            sum = (sum.0 + received, sum.1 + counters.get(8).copied().unwrap_or_default());
        }
    }
    Some(sum)
}

/// A number of bytes with a unit.
fn size(value: &Value) -> String {
    let Some(bytes) = value.as_u64() else { return "-".to_owned() };
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{scaled:.1}{}", units[unit]) }
}

/// The fields, with their headings (docs.docker.com, "docker container stats", Format).
pub(crate) const HEADINGS: [(&str, &str); 9] = [
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// A row as Docker has it. What is not known, such as all that disks do, is `--`.
pub(crate) fn docker(row: &Value) -> Row {
    let known = |text: String| if text == "-" { "--".to_owned() } else { text };
    let fields = json!({
        "Container": row["id"],
        "Name": row["name"],
        "ID": row["id"],
        "CPUPerc": known(percent(row, "cpuPercent")),
        "MemUsage": pair(row, "memory", "memoryLimit"),
        "MemPerc": known(percent(row, "memoryPercent")),
        "NetIO": pair(row, "received", "sent"),
        "BlockIO": "--",
        "PIDs": known(pids(row)),
    });
    Row { fields, ..Row::default() }
}

fn percent(row: &Value, name: &str) -> String {
    row[name].as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.2}%"))
}

fn pair(row: &Value, one: &str, other: &str) -> String {
    format!("{} / {}", size(&row[one]), size(&row[other]))
}

fn pids(row: &Value) -> String {
    if row["pids"].is_null() { "-".to_owned() } else { rows::word(&row["pids"]) }
}

/// The rows as a table with headings.
pub(crate) fn table(rows: &Value) -> String {
    let headings = ["CONTAINER", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "PIDS"].map(str::to_owned);
    let mut lines = vec![headings];
    for row in rows.as_array().into_iter().flatten() {
        lines.push([
            rows::word(&row["name"]),
            percent(row, "cpuPercent"),
            pair(row, "memory", "memoryLimit"),
            percent(row, "memoryPercent"),
            pair(row, "received", "sent"),
            pids(row),
        ]);
    }
    rows::table(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_as_docker_has_it() {
        let fields =
            docker(&json!({"id": "web", "name": "shop", "cpuPercent": 1.5, "memory": 1 << 20, "memoryLimit": 2 << 20}))
                .fields;
        assert_eq!((fields["Name"].as_str(), fields["CPUPerc"].as_str()), (Some("shop"), Some("1.50%")));
        assert_eq!(
            (fields["MemUsage"].as_str(), fields["PIDs"].as_str()),
            (Some("1.0MiB / 2.0MiB"), Some("--"))
        );
    }

    #[test]
    fn sizes_as_people_read_them() {
        for (bytes, text) in
            [(json!(512), "512B"), (json!(1536), "1.5KiB"), (json!(5 << 20), "5.0MiB"), (Value::Null, "-")]
        {
            assert_eq!(size(&bytes), text);
        }
        assert!(machine_memory().unwrap() > 0);
        assert!(network(std::process::id() as i32).is_some());
    }
}
