//! A process as `/proc` shows it (proc(5)).

use std::{fs, os::unix::fs::MetadataExt};

use operation::Namespace;
use runtime::Stat;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// The processes in the pid namespace of this one. One with a namespace of its own inside of it is left out.
pub(crate) fn beside(pid: i32) -> Result<Vec<i32>> {
    let namespace = |pid: i32| Namespace::Pids.of(pid);
    let own = namespace(pid).with_context(|| format!("read the pid namespace of process {pid}"))?;
    let listed = fs::read_dir("/proc").context("list \"/proc\"")?.flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // A process may have ended, or be somebody else's.
    Ok(pids.filter(|pid| namespace(*pid).is_ok_and(|found| found == own)).collect())
}

/// The row of a process. None if the process is gone.
pub(crate) fn row(pid: i32) -> Option<Value> {
    let place = format!("/proc/{pid}");
    let stat = Stat::of(pid).ok()??;
    let status = fs::read_to_string(format!("{place}/status")).unwrap_or_default();
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let inside = inside.and_then(|pids| pids.split_whitespace().last()?.parse::<i32>().ok());
    let arguments = fs::read(format!("{place}/cmdline")).unwrap_or_default();
    let words: Vec<String> =
        arguments.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let words = words.strip_suffix(&[String::new()]).map(<[String]>::to_vec).unwrap_or(words);
    let command = if words.iter().all(String::is_empty) { vec![format!("[{}]", stat.name)] } else { words };
    Some(json!({
        "pid": pid,
        "inside": inside,
        "parent": stat.parent,
        "uid": fs::metadata(&place).ok()?.uid(),
        "state": stat.state,
        // In milliseconds.
        "time": u64::try_from(stat.processor_time().as_millis()).ok()?,
        // In bytes.
        "memory": stat.resident_memory(),
        "command": command,
    }))
}

/// The rows as a table with headings.
pub(crate) fn table(rows: &Value) -> String {
    let mut lines = vec![["UID", "PID", "INSIDE", "PPID", "STATE", "TIME", "RSS", "CMD"].map(str::to_owned)];
    for row in rows.as_array().into_iter().flatten() {
        let cell = |name: &str| rows::word(&row[name]);
        let seconds = row["time"].as_u64().unwrap_or_default() / 1000;
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let memory = format!("{}K", row["memory"].as_u64().unwrap_or_default() >> 10);
        lines.push([
            cell("uid"),
            cell("pid"),
            cell("inside"),
            cell("parent"),
            cell("state"),
            time,
            memory,
            cell("command"),
        ]);
    }
    rows::table(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process() {
        let pid = std::process::id() as i32;
        let row = row(pid).unwrap();
        assert_eq!(row["pid"], pid);
        assert_eq!(row["parent"], std::os::unix::process::parent_id());
        assert!(row["memory"].as_u64().unwrap() > 0 && !row["command"].as_array().unwrap().is_empty());
        assert!(table(&json!([row])).starts_with("UID "));
        assert_eq!(super::row(0), None);
    }
}
