//! A machine in an emulator, for tests that depend on the kernel.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{binaries, require_root};

/// Unpacks Debian's kernel, and makes a disk with the tools and busybox. The kernel starts with `start.sh` in memory.
const MAKE: &str = r#"
set -eu
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2 }')
[ -e "$CACHE/$package.deb" ] || { apt-get download -q "$package" && mv "$package"_*.deb "$CACHE/$package.deb"; }
dpkg-deb -x "$CACHE/$package.deb" kernel
mv kernel/boot/vmlinuz-* vmlinuz

mkdir -p root/bin root/tools root/dev root/proc root/sys root/tmp root/etc start/bin start/dev start/root
cp /bin/busybox root/bin; cp /bin/busybox start/bin
for tool in $TOOLS; do
    case $tool in
    /*) cp "$tool" root/tools ;;
    *) strip -o "root/tools/$tool" "$BINARIES/$tool" ;;
    esac
done
for library in $(ldd root/tools/* | grep -o '/lib[^ ]*' | sort -u); do
    mkdir -p "root${library%/*}"; cp -L "$library" "root$library"
done
if [ -e modules ]; then
    # What networks are made of, with what loads it.
    version=$(ls kernel/lib/modules)
    for part in net drivers/net crypto arch lib; do
        mkdir -p "root/lib/modules/$version/kernel/$part"
        cp -r "kernel/lib/modules/$version/kernel/$part/." "root/lib/modules/$version/kernel/$part"
    done
    cp kernel/lib/modules/*/modules.builtin* kernel/lib/modules/*/modules.order "root/lib/modules/$version"
    depmod -b root "$version"
    mkdir root/sbin && ln -s /bin/busybox root/sbin/modprobe
fi
mke2fs -q -t ext4 -d root start/root.img "$([ -e modules ] && echo 400m || echo 192m)"
find kernel/lib/modules \( -name overlay.ko -o -name loop.ko \) -exec cp {} start \;
cp start.sh start/init
cd start && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > ../initrd
"#;

/// Enters a file system on a disk: pivot_root cannot replace the root that a kernel starts with, and a tmpfs
/// of this kernel has no `user.*` attributes.
const START: &str = "#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
busybox insmod /overlay.ko; busybox insmod /loop.ko
busybox losetup /dev/loop0 /root.img
busybox mount -t ext4 /dev/loop0 /root
exec busybox switch_root /root /init
";

/// The beginning of every machine's init.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/tools:/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
echo root:x:0:0:root:/:/bin/sh > /etc/passwd; echo nobody:x:65534:65534::/:/bin/sh >> /etc/passwd
echo \"kernel $(uname -r)\"
. /script
echo end
poweroff -f
";

/// A machine with Linux 6.1 of Debian 12, two processors, busybox and tools, but without a network. Only
/// `/proc`, `/sys` and `/dev` are mounted.
#[derive(Debug)]
pub struct Machine(TempDir);

impl Machine {
    /// Makes a machine without further files.
    ///
    /// # Panics
    /// Without root.
    #[expect(clippy::new_without_default, reason = "it panics without root")]
    pub fn new() -> Self {
        require_root();
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir(machine.0.path().join("root")).unwrap();
        machine
    }

    /// Adds a file at the top of the machine's file system.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join("root").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Gives it the kernel's modules for networks. They are loaded when they are needed, and by `modprobe`.
    ///
    /// # Panics
    /// When the disk is full.
    #[must_use]
    pub fn with_network(self) -> Self {
        fs::write(self.0.path().join("modules"), "").unwrap();
        self
    }

    /// Boots the machine with `tools` in `/tools` (names of tools, or paths of other programs), runs `script`
    /// with a shell, and returns the output.
    ///
    /// # Panics
    /// If the emulator, the kernel's package or `strip` is missing, or if the script has not ended after five
    /// minutes.
    pub fn boot(&self, tools: &[&str], script: &str) -> String {
        self.file("init", INIT);
        self.file("script", script);
        fs::write(self.0.path().join("start.sh"), START).unwrap();
        fs::set_permissions(self.0.path().join("start.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        let made = Command::new("sh")
            .args(["-c", MAKE])
            .current_dir(&self.0)
            .env("BINARIES", binaries())
            .env("TOOLS", tools.join(" "))
            .env("CACHE", cache())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut emulator = Command::new("timeout");
        emulator.args(["300", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2"]);
        emulator.args(["-m", "1536", "-nographic", "-no-reboot", "-net", "none"]);
        emulator.args(["-kernel", "vmlinuz", "-initrd", "initrd"]);
        emulator.args(["-append", "console=ttyS0 quiet panic=-1"]);
        let output = emulator.current_dir(&self.0).output();
        let output = output.expect("qemu is missing: apt-get install qemu-system-x86");
        let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let kernel = said.lines().find_map(|line| line.split_once("kernel ").map(|(_, release)| release));
        assert!(kernel.is_some_and(|release| release.starts_with("6.1.")), "not Debian 12's kernel: {said}");
        assert!(said.contains("\nend\n"), "the script did not end: {said}");
        said
    }
}

/// The directory that keeps the kernel's package, beside the tests' programs.
fn cache() -> PathBuf {
    let place = binaries().join("machine");
    fs::create_dir_all(&place).unwrap();
    place
}
