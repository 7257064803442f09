//! The limits of the command line, with Docker's names, for the tools that set and change them.

use std::{
    ops::RangeInclusive,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::PathBuf,
    str::FromStr,
};

use clap::Args;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder,
};
use operation::quantity::{ranges, size};
use rustix::fs::{major, minor};
use toolkit::prelude::*;

/// The default period of a processor limit, in microseconds, as in the kernel and Docker.
const PERIOD: u64 = 100_000;

/// The smallest memory limit, as in Docker: with less, a process could not even start.
const LEAST_MEMORY: i64 = 6 << 20;

/// The flags for limits, each in the group `limit`. The command must define this group, with `multiple`.
#[derive(Debug, Clone, Default, Args)]
pub struct Limits {
    /// Limit the memory; units: b, k, m, g; 0 for no limit
    #[arg(short, long, group = "limit", value_name = "SIZE", value_parser = bytes)]
    memory: Option<i64>,
    /// Limit memory and swap together; -1 for unlimited swap; by default twice the memory
    #[arg(long, group = "limit", value_name = "SIZE|-1", value_parser = bytes_or_all, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Memory to leave to the container when memory is short
    #[arg(long, group = "limit", value_name = "SIZE", value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// Limit processor time to this many processors, such as 1.5; 0 for no limit
    #[arg(long, group = "limit", value_name = "NUMBER")]
    cpus: Option<Processors>,
    /// The period of --cpu-quota in microseconds, 1000 to 1000000; 100000 by default
    #[arg(long, group = "limit", value_name = "TIME", conflicts_with = "cpus", value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
    cpu_period: Option<u64>,
    /// The processor time in each period in microseconds, at least 1000; -1 or 0 for no limit
    #[arg(long, group = "limit", value_name = "TIME", conflicts_with = "cpus", value_parser = quota, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// The share of processor time when processors are busy, 2 to 262144; 0 for the default, 1024
    #[arg(long, group = "limit", value_name = "SHARES", value_parser = shares)]
    cpu_shares: Option<u64>,
    /// The processors that the container may use, such as 0-2,4
    #[arg(long, group = "limit", value_name = "LIST", value_parser = list)]
    cpuset_cpus: Option<String>,
    /// The memory nodes that the container may use
    #[arg(long, group = "limit", value_name = "LIST", value_parser = list)]
    cpuset_mems: Option<String>,
    /// Limit the number of processes and threads; -1 for no limit
    #[arg(long, alias = "pids-limit", group = "limit", value_name = "N", allow_hyphen_values = true)]
    pids: Option<i64>,
    /// The share of disk time with the BFQ scheduler, 10 to 1000; 0 for the default
    #[arg(long, alias = "blkio-weight", group = "limit", value_name = "WEIGHT", value_parser = weight)]
    io_weight: Option<u16>,
    /// Limit reading from a disk, in bytes a second; repeatable
    #[arg(long, group = "limit", value_name = "DEVICE:RATE")]
    device_read_bps: Vec<Bandwidth>,
    /// Limit writing to a disk, in bytes a second; repeatable
    #[arg(long, group = "limit", value_name = "DEVICE:RATE")]
    device_write_bps: Vec<Bandwidth>,
    /// Limit reading from a disk, in operations a second; repeatable
    #[arg(long, group = "limit", value_name = "DEVICE:RATE")]
    device_read_iops: Vec<Bandwidth>,
    /// Limit writing to a disk, in operations a second; repeatable
    #[arg(long, group = "limit", value_name = "DEVICE:RATE")]
    device_write_iops: Vec<Bandwidth>,
    /// Limit huge pages of one size, such as 2MB:64M; repeatable
    #[arg(long, group = "limit", value_name = "PAGE:SIZE")]
    hugetlb: Vec<HugePages>,
}

/// Parses a number of bytes that fits into the kernel's files.
fn bytes(text: &str) -> Result<i64, String> {
    i64::try_from(size(text)?).map_err(|_| "it is too large".to_owned())
}

fn bytes_or_all(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

fn shares(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(shares @ (0 | 2..=262_144)) => Ok(shares),
        _ => Err("it is 2 to 262144, or 0 for the default".to_owned()),
    }
}

fn weight(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(weight @ (0 | 10..=1000)) => Ok(weight),
        _ => Err("it is 10 to 1000, or 0 for the default".to_owned()),
    }
}

fn quota(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(-1 | 0) => Ok(-1),
        Ok(time @ 1000..) => Ok(time),
        _ => Err("it is at least 1000, or -1".to_owned()),
    }
}

/// Parses a list of processors or memory nodes. An empty one is no limit, as with Docker.
fn list(text: &str) -> Result<String, String> {
    match text.is_empty() || ranges(text).is_some() {
        true => Ok(text.to_owned()),
        false => Err("it is a list such as 0-2,4".to_owned()),
    }
}

/// Refuses what the machine does not have: cgroup version 2 would ignore it. `online` is the kernel's own list.
fn available(kind: &str, list: Option<&str>, online: &str) -> Result<()> {
    let (Some(wanted), Some(own)) = (list.and_then(ranges), ranges(online.trim())) else { return Ok(()) };
    let has = |wanted: &RangeInclusive<usize>| {
        own.iter().any(|own| own.start() <= wanted.start() && wanted.end() <= own.end())
    };
    if !wanted.iter().all(has) {
        bail!("use the {kind} {}: this machine has {}", list.unwrap_or_default(), online.trim());
    }
    Ok(())
}

/// Processor time in microseconds of each [`PERIOD`]. 0 for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Processors(i64);

impl FromStr for Processors {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || "it is a number such as 2 or 1.5, at least 0.01".to_owned();
        let number: f64 = text.parse().map_err(|_| invalid())?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "the range is checked"
        )]
        match (number * PERIOD as f64).round() {
            0.0 if number == 0.0 => Ok(Self(0)),
            quota if (1000.0..1e15).contains(&quota) => Ok(Self(quota as i64)),
            _ => Err(invalid()),
        }
    }
}

/// A limit for a disk, in bytes or operations a second.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bandwidth {
    device: PathBuf,
    rate: u64,
}

impl FromStr for Bandwidth {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (device, rate) = text.rsplit_once(':').ok_or("it is DEVICE:RATE, such as /dev/sda:1mb")?;
        if !device.starts_with('/') {
            return Err(format!("{device:?} is not the path of a device"));
        }
        match size(rate)? {
            0 => Err("the rate is at least 1".to_owned()),
            rate => Ok(Self { device: device.into(), rate }),
        }
    }
}

impl Bandwidth {
    fn throttle(&self) -> Result<LinuxThrottleDevice> {
        let device = &self.device;
        let found = device.metadata().with_context(|| format!("look at device {device:?}"))?;
        if !found.file_type().is_block_device() {
            bail!("{device:?} is not a block device");
        }
        let number = found.rdev();
        let throttle = LinuxThrottleDeviceBuilder::default().major(major(number)).minor(minor(number));
        Ok(throttle.rate(self.rate).build()?)
    }
}

/// A limit for huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HugePages {
    /// The page size as the kernel writes it: `2MB`, `1GB`.
    page: String,
    bytes: i64,
}

impl FromStr for HugePages {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (page, limit) = text.split_once(':').ok_or("it is PAGE:SIZE, such as 2MB:64M")?;
        let bytes_of_page = size(page)?;
        let units = [(30, "GB"), (20, "MB"), (10, "KB")];
        let unit =
            units.into_iter().find(|(shift, _)| bytes_of_page != 0 && bytes_of_page % (1 << shift) == 0);
        let (shift, unit) = unit.ok_or_else(|| format!("{page:?} is no size of a page"))?;
        Ok(Self { page: format!("{}{unit}", bytes_of_page >> shift), bytes: bytes(limit)? })
    }
}

impl Limits {
    /// The limits in the form of OCI runtime-spec, for a new container.
    ///
    /// # Errors
    /// For a memory limit that is too small, for processors that the machine does not have, and for a device that is none.
    pub fn resources(&self) -> Result<LinuxResources> {
        let mut resources = LinuxResources::default();
        // 0 means no limit, as with Docker.
        let [limit, swap, reservation] = [self.memory, self.memory_swap, self.memory_reservation]
            .map(|bytes| bytes.filter(|bytes| *bytes != 0));
        if let Some(bytes) = limit.filter(|bytes| *bytes < LEAST_MEMORY) {
            bail!("limit the memory to {bytes} bytes: it is at least 6m");
        }
        if let Some(bytes) = reservation.filter(|bytes| *bytes < LEAST_MEMORY) {
            bail!("reserve {bytes} bytes of memory: it is at least 6m");
        }
        if let (Some(limit), Some(reserved)) = (limit, reservation)
            && limit < reserved
        {
            bail!("reserve {reserved} bytes of memory: the limit is {limit}");
        }
        let mut memory = LinuxMemory::default();
        memory.set_limit(limit).set_swap(swap).set_reservation(reservation);
        resources.set_memory(Some(memory).filter(|memory| *memory != LinuxMemory::default()));
        let mut cpu = LinuxCpu::default();
        match self.cpus {
            Some(Processors(0)) => {}
            Some(Processors(quota)) => drop(cpu.set_quota(Some(quota)).set_period(Some(PERIOD))),
            None => drop(cpu.set_quota(self.cpu_quota).set_period(self.cpu_period)),
        }
        let [cpus, mems] =
            [&self.cpuset_cpus, &self.cpuset_mems].map(|list| list.clone().filter(|list| !list.is_empty()));
        // Where the kernel does not tell what it has, it still refuses.
        let online = |kind| std::fs::read_to_string(format!("/sys/devices/system/{kind}/online"));
        available("processors", cpus.as_deref(), &online("cpu").unwrap_or_default())?;
        available("memory nodes", mems.as_deref(), &online("node").unwrap_or_default())?;
        cpu.set_shares(self.cpu_shares.filter(|shares| *shares != 0)).set_cpus(cpus).set_mems(mems);
        resources.set_cpu(Some(cpu.clone()).filter(|cpu| *cpu != LinuxCpu::default()));
        resources.set_pids(self.pids.map(|limit| {
            let mut pids = LinuxPids::default();
            // Docker's 0 also means unlimited.
            pids.set_limit(if limit <= 0 { -1 } else { limit });
            pids
        }));
        let io = self.io()?;
        resources.set_block_io(Some(io.clone()).filter(|io| *io != LinuxBlockIo::default()));
        let pages = self.hugetlb.iter().map(|HugePages { page, bytes }| {
            let mut limit = LinuxHugepageLimit::default();
            limit.set_page_size(page.clone()).set_limit(*bytes);
            limit
        });
        resources.set_hugepage_limits(Some(pages.collect()).filter(|list: &Vec<_>| !list.is_empty()));
        Ok(resources)
    }

    /// The limits as changes of those that a container has. Unlike [`Limits::resources`], 0 removes a limit.
    ///
    /// # Errors
    /// As [`Limits::resources`], and for a 0 that would change nothing.
    pub fn changes(&self) -> Result<LinuxResources> {
        let mut changes = self.resources()?;
        for (flag, value) in
            [("--memory-swap", self.memory_swap), ("--memory-reservation", self.memory_reservation)]
        {
            if value == Some(0) {
                bail!("{flag} 0 changes nothing: name a size");
            }
        }
        if self.memory == Some(0) {
            let mut memory = changes.memory().unwrap_or_default();
            // Memory cannot be unlimited below a limit of memory and swap.
            let swap = memory.swap().unwrap_or(-1);
            memory.set_limit(Some(-1)).set_swap(Some(swap));
            changes.set_memory(Some(memory));
        }
        if self.cpus == Some(Processors(0)) {
            let mut cpu = changes.cpu().clone().unwrap_or_default();
            cpu.set_quota(Some(-1)).set_period(Some(PERIOD));
            changes.set_cpu(Some(cpu));
        }
        // These two are shares, so 0 puts the kernel's default back.
        if self.cpu_shares == Some(0) {
            let mut cpu = changes.cpu().clone().unwrap_or_default();
            cpu.set_shares(Some(1024));
            changes.set_cpu(Some(cpu));
        }
        if self.io_weight == Some(0) {
            let mut io = changes.block_io().clone().unwrap_or_default();
            io.set_weight(Some(100));
            changes.set_block_io(Some(io));
        }
        Ok(changes)
    }

    fn io(&self) -> Result<LinuxBlockIo> {
        let all = |list: &[Bandwidth]| -> Result<Option<Vec<_>>> {
            let list: Vec<_> = list.iter().map(Bandwidth::throttle).collect::<Result<_>>()?;
            Ok(Some(list).filter(|list| !list.is_empty()))
        };
        let mut io = LinuxBlockIo::default();
        io.set_weight(self.io_weight.filter(|weight| *weight != 0))
            .set_throttle_read_bps_device(all(&self.device_read_bps)?)
            .set_throttle_write_bps_device(all(&self.device_write_bps)?)
            .set_throttle_read_iops_device(all(&self.device_read_iops)?)
            .set_throttle_write_iops_device(all(&self.device_write_iops)?);
        Ok(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_of_docker_write() {
        for (text, quota) in [
            ("1.5", Ok(150_000)),
            ("2", Ok(200_000)),
            ("0.01", Ok(1000)),
            ("0", Ok(0)),
            ("0.00", Ok(0)),
            ("0.001", Err(())),
            ("x", Err(())),
            ("-1", Err(())),
            ("nan", Err(())),
        ] {
            assert_eq!(text.parse::<Processors>().map(|found| found.0).map_err(drop), quota, "{text}");
        }
        assert_eq!("2m:64m".parse(), Ok(HugePages { page: "2MB".into(), bytes: 64 << 20 }));
        assert_eq!("1gb:1g".parse(), Ok(HugePages { page: "1GB".into(), bytes: 1 << 30 }));
        assert!("2MB".parse::<HugePages>().is_err());
        assert_eq!("/dev/sda:1mb".parse(), Ok(Bandwidth { device: "/dev/sda".into(), rate: 1 << 20 }));
        assert!("sda:1".parse::<Bandwidth>().is_err() && "/dev/sda:0".parse::<Bandwidth>().is_err());
        assert_eq!((major(0x0801), minor(0x0801)), (8, 1));
        assert_eq!(bytes_or_all("-1"), Ok(-1));
        assert_eq!((quota("50000"), quota("0"), quota("-1")), (Ok(50_000), Ok(-1), Ok(-1)));
        assert!(quota("999").is_err() && quota("-2").is_err());
        assert_eq!((shares("0"), shares("2"), weight("0"), weight("10")), (Ok(0), Ok(2), Ok(0), Ok(10)));
        assert!(shares("1").is_err() && weight("9").is_err());
        let limits = |memory, memory_reservation| Limits { memory, memory_reservation, ..Limits::default() };
        assert!(limits(Some(64 << 20), Some(128 << 20)).resources().is_err());
        assert!(limits(Some(64 << 20), Some(64 << 20)).resources().is_ok());
        assert!(limits(None, Some(64 << 20)).resources().is_ok());
        assert!(limits(None, Some(1 << 20)).resources().is_err());
        for (text, is_list) in [("0-2,4", true), ("", true), ("1-0", false), (",", false), ("a", false)] {
            assert_eq!(list(text).is_ok(), is_list, "{text}");
        }
        let error = available("processors", Some("0,7"), "0-3,5\n").unwrap_err();
        assert_eq!(error.to_string(), "use the processors 0,7: this machine has 0-3,5");
        assert!(available("processors", Some("5,1-2"), "0-3,5\n").is_ok());
        assert!(available("processors", Some("7"), "").is_ok());
        let changes =
            Limits { cpu_shares: Some(0), io_weight: Some(0), ..Limits::default() }.changes().unwrap();
        assert_eq!(changes.cpu().as_ref().and_then(LinuxCpu::shares), Some(1024));
        assert_eq!(changes.block_io().as_ref().and_then(LinuxBlockIo::weight), Some(100));
    }
}
