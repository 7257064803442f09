//! Resource limits and usage.

use std::{io::Read, time::Duration};

use anyhow::{Context as _, Result, bail};
use container::{Container, Status};
use serde_json::{Map, Value, json};

use super::{Context, arguments::Update, listing};

pub(crate) fn update(context: &Context, update: &Update) -> Result<()> {
    if update.l3_cache_schema.is_some() || update.mem_bw_schema.is_some() {
        bail!("update container {:?}: classes of service of Intel RDT are not carried out", update.id);
    }
    let found = context.store.get(&update.id)?;
    let changes = match &update.resources {
        Some(path) => {
            let mut text = String::new();
            match path.as_os_str() == "-" {
                true => std::io::stdin().read_to_string(&mut text).map(drop),
                false => std::fs::read_to_string(path).map(|read| text = read),
            }
            .with_context(|| format!("read {path:?}"))?;
            serde_json::from_str(&text).with_context(|| format!("read {path:?}"))?
        }
        None => of_flags(update)?,
    };
    let warnings = container::update(&found, changes)?;
    warnings.iter().for_each(|warning| context.log.warn(warning));
    Ok(())
}

fn size(text: &Option<String>) -> Result<Option<i64>> {
    let one = |text: &String| match text.parse::<i64>() {
        Ok(number) => Ok(number),
        Err(_) => operation::quantity::size(text)
            .and_then(|size| i64::try_from(size).map_err(|_| format!("{text:?} is too much")))
            .map_err(|error| anyhow::anyhow!("read size {text:?}: {error}")),
    };
    text.as_ref().map(one).transpose()
}

fn of_flags(update: &Update) -> Result<Value> {
    let mut all = Map::new();
    let mut set = |group: &str, name: &str, value: Option<Value>| {
        if let Some(value) = value {
            let group = all.entry(group).or_insert_with(|| json!({}));
            group[name] = value;
        }
    };
    set("blockIO", "weight", update.blkio_weight.map(Value::from));
    set("cpu", "period", update.cpu_period.map(Value::from));
    set("cpu", "quota", update.cpu_quota.map(Value::from));
    set("cpu", "burst", update.cpu_burst.map(Value::from));
    set("cpu", "shares", update.cpu_share.map(Value::from));
    set("cpu", "realtimePeriod", update.cpu_rt_period.map(Value::from));
    set("cpu", "realtimeRuntime", update.cpu_rt_runtime.map(Value::from));
    set("cpu", "cpus", update.cpuset_cpus.clone().map(Value::from));
    set("cpu", "mems", update.cpuset_mems.clone().map(Value::from));
    set("cpu", "idle", update.cpu_idle.map(Value::from));
    set("memory", "limit", size(&update.memory)?.map(Value::from));
    set("memory", "reservation", size(&update.memory_reservation)?.map(Value::from));
    set("memory", "swap", size(&update.memory_swap)?.map(Value::from));
    set("pids", "limit", update.pids_limit.map(Value::from));
    Ok(Value::Object(all))
}

/// Prints one line for each report; with `once` only the first. Returns when the container ends.
pub(crate) fn events(found: &Container, once: bool, interval: Duration) -> Result<()> {
    if interval.is_zero() {
        bail!("wait between two lines: --interval is zero");
    }
    let mut kills = container::stats::oom_kills(found)?;
    loop {
        if found.record()?.status()? == Status::Stopped {
            if once {
                bail!("look at container {:?}: container not running", found.id());
            }
            return Ok(());
        }
        let line = json!({"type": "stats", "id": found.id(), "data": container::stats::of(found)?});
        listing::line(&line)?;
        if once {
            return Ok(());
        }
        std::thread::sleep(interval);
        let now = container::stats::oom_kills(found).unwrap_or(kills);
        if now > kills {
            listing::line(&json!({"type": "oom", "id": found.id()}))?;
            kills = now;
        }
    }
}
