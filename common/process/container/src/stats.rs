//! The resource usage of a container, in the form of `runc events`.

use std::collections::BTreeMap;

use cgroup::Homes;
use serde_json::{Map, Value, json};

use crate::{Container, Result};

/// Returns the current usage.
///
/// # Errors
/// When the container's cgroups cannot be read.
pub fn of(container: &Container) -> Result<Value> {
    let homes = container.record()?.cgroups;
    Ok(json!({
        "cpu": cpu(&homes)?,
        "cpuset": {},
        "memory": memory(&homes)?,
        "pids": pids(&homes)?,
        "blkio": {},
        "hugetlb": huge_pages(&homes)?,
        "intel_rdt": {},
        "network_interfaces": null,
    }))
}

/// Returns how often the kernel has killed a process of the container because memory ran out.
///
/// # Errors
/// As [`of`].
pub fn oom_kills(container: &Container) -> Result<u64> {
    let homes = container.record()?.cgroups;
    let of_new = keyed(&homes, "memory", "memory.events")?;
    let of_old = keyed(&homes, "memory", "memory.oom_control")?;
    Ok(of_new.get("oom_kill").or_else(|| of_old.get("oom_kill")).copied().unwrap_or_default())
}

fn read(homes: &Homes, controller: &str, file: &str) -> Result<Option<String>> {
    homes.with(controller).map_or(Ok(None), |home| home.read(file))
}

/// Reads a number from a file. `None` for "max", and if the file does not exist.
fn number(homes: &Homes, controller: &str, file: &str) -> Result<Option<u64>> {
    Ok(read(homes, controller, file)?.and_then(|text| text.trim().parse().ok()))
}

/// Reads a file with a name and a number in each line.
fn keyed(homes: &Homes, controller: &str, file: &str) -> Result<BTreeMap<String, u64>> {
    let text = read(homes, controller, file)?.unwrap_or_default();
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn cpu(homes: &Homes) -> Result<Value> {
    // In microseconds with version 2. With version 1 the file of this name only counts throttling.
    let stat = keyed(homes, "cpu", "cpu.stat")?;
    let of = |name: &str| stat.get(name).copied().unwrap_or_default();
    let throttling = json!({
        "periods": of("nr_periods"),
        "throttledPeriods": of("nr_throttled"),
        "throttledTime": stat.get("throttled_time").copied().unwrap_or_else(|| of("throttled_usec") * 1000),
    });
    let mut usage = Map::new();
    if let Some(total) = number(homes, "cpuacct", "cpuacct.usage")? {
        let each = read(homes, "cpuacct", "cpuacct.usage_percpu")?.unwrap_or_default();
        let each: Vec<u64> = each.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        usage.insert("total".into(), json!(total));
        usage.insert("percpu".into(), json!(each));
        usage.insert(
            "kernel".into(),
            json!(number(homes, "cpuacct", "cpuacct.usage_sys")?.unwrap_or_default()),
        );
        usage.insert(
            "user".into(),
            json!(number(homes, "cpuacct", "cpuacct.usage_user")?.unwrap_or_default()),
        );
    } else {
        for (name, key) in [("total", "usage_usec"), ("kernel", "system_usec"), ("user", "user_usec")] {
            usage.insert(name.into(), json!(of(key) * 1000));
        }
    }
    Ok(json!({"usage": usage, "throttling": throttling}))
}

fn memory(homes: &Homes) -> Result<Value> {
    let raw = keyed(homes, "memory", "memory.stat")?;
    let is_old = number(homes, "memory", "memory.usage_in_bytes")?.is_some();
    let entry = |prefix: &str| -> Result<Value> {
        let of = |file: &str| number(homes, "memory", &format!("memory.{prefix}{file}"));
        Ok(match is_old {
            true => json!({
                "limit": of("limit_in_bytes")?.unwrap_or_default(),
                "usage": of("usage_in_bytes")?.unwrap_or_default(),
                "max": of("max_usage_in_bytes")?.unwrap_or_default(),
                "failcnt": of("failcnt")?.unwrap_or_default(),
            }),
            false => json!({
                "limit": of("max")?.unwrap_or(u64::MAX),
                "usage": of("current")?.unwrap_or_default(),
                "max": of("peak")?.unwrap_or_default(),
                "failcnt": 0,
            }),
        })
    };
    let cache = raw.get("cache").or_else(|| raw.get("file")).copied().unwrap_or_default();
    let swap = if is_old { "memsw." } else { "swap." };
    Ok(
        json!({"cache": cache, "usage": entry("")?, "swap": entry(swap)?, "kernel": entry("kmem.")?, "raw": raw}),
    )
}

fn pids(homes: &Homes) -> Result<Value> {
    let mut pids = Map::new();
    if let Some(current) = number(homes, "pids", "pids.current")? {
        pids.insert("current".into(), json!(current));
    }
    if let Some(limit) = number(homes, "pids", "pids.max")? {
        pids.insert("limit".into(), json!(limit));
    }
    Ok(Value::Object(pids))
}

fn huge_pages(homes: &Homes) -> Result<Value> {
    let mut sizes = Map::new();
    for size in ["2MB", "1GB"] {
        if let Some(usage) = number(homes, "hugetlb", &format!("hugetlb.{size}.current"))? {
            let failures = keyed(homes, "hugetlb", &format!("hugetlb.{size}.events"))?;
            sizes.insert(
                size.into(),
                json!({"usage": usage, "failcnt": failures.get("max").copied().unwrap_or_default()}),
            );
        }
    }
    Ok(Value::Object(sizes))
}
