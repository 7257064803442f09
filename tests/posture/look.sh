# Examines a container from inside, with busybox. Prints one line for each aspect: `name: value`.
# $HOST_NS lists what the caller has: namespaces, as `kind=inode`, and the lines of limits.awk and keys.
status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status | sed 's/^0*\([0-9a-f]\)/\1/'; }
# Target, options and type of each mount (proc_pid_mountinfo(5): a dash ends the optional fields).
mounts() { awk '{ for (i = 7; i < NF; i++) if ($i == "-") { print $5, $6, $(i + 1); next } }' /proc/self/mountinfo; }
is_of_host() { case " $HOST_NS " in *" $1 "*) true ;; *) false ;; esac; }
list() { tr '\n' ' ' | sed 's/ *$//'; }
for set in Inh Prm Eff Bnd Amb; do echo "capabilities, $set: $(status "Cap$set")"; done
case $(status Seccomp) in 0) echo 'seccomp: none' ;; 2) echo 'seccomp: a filter' ;; esac
echo "no_new_privs: $(status NoNewPrivs)"
hidden=''
for path in /proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats \
    /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap /sys/devices/system/cpu/cpu*/thermal_throttle; do
    [ -e "$path" ] || continue
    mounts | grep -q "^$path " || { [ -d "$path" ] && [ -z "$(ls -A "$path" 2>/dev/null)" ]; } || hidden="$hidden $path"
done
echo "not masked: ${hidden:- nothing}"
open=''
for path in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger; do
    [ -e "$path" ] || continue
    mounts | grep -q "^$path ro" || open="$open $path"
done
mounts | grep -q '^/proc ro' && open=''
echo "not read-only: ${open:- nothing}"
places='/ /proc /sys /sys/fs/cgroup /dev /dev/pts /dev/shm /dev/mqueue'
for target in $places; do
    found=$(mounts | awk -v t="$target" '$1 == t { o = $2; k = $3 } END { print k, o }')
    case $found in ' ') echo "mount $target: none" ;; *)
        flags=$(echo "${found#* }" | tr ',' '\n' | grep -E '^(ro|nosuid|nodev|noexec)$' | list)
        echo "mount $target: ${found%% *} ${flags:-without flags}" ;;
    esac
done
# Masks and devices are rows of their own.
other=$(mounts | while read -r target rest; do
    case " $places " in *" $target "*) continue ;; esac
    case $target in /proc/* | /sys/firmware | /sys/devices/* | /sys/fs/cgroup/*) ;; *) [ -c "$target" ] || echo "$target" ;; esac
done | sort | list)
echo "other mounts: ${other:-none}"
echo "devices: $(cd /dev && for d in *; do { [ -c "$d" ] || [ -b "$d" ]; } && [ ! -L "$d" ] && echo "$d"; done | list)"
mknod /tmp/disk b 7 0 2>/dev/null && { head -c1 /tmp/disk >/dev/null 2>&1 && echo 'a node of its own: opens' || echo 'a node of its own: does not open'; } ||
    echo 'a node of its own: cannot be made'
rm -f /tmp/disk
grep -q '^0::/$' /proc/self/cgroup && echo 'cgroup: its own root' || echo "cgroup: the path is shown"
mkdir /sys/fs/cgroup/x 2>/dev/null && [ -e /sys/fs/cgroup/x/cgroup.procs ] && echo 'cgroups can be made: yes' || echo 'cgroups can be made: no'
rmdir /sys/fs/cgroup/x 2>/dev/null
# ls opens the directory, which is one of the descriptors.
echo "descriptors beyond the standard ones: $(($(ls /proc/self/fd | wc -l) - 4))"
/keys | while IFS='=' read -r kind number; do
    case $number in none | refused) ;; *) is_of_host "$kind=$number" && number="the caller's" || number='its own' ;; esac
    echo "keyring of the $kind: $number"
done
limits=$(awk -f /limits.awk /proc/self/limits | while IFS='=' read -r name value; do
    is_of_host "$name=$value" || echo "$name $value"
done | list)
echo "resource limits: ${limits:-those of the caller}"
echo "user and groups: $(id -u):$(id -g) $(id -G)"
for kind in user group; do
    [ "$kind" = user ] && map=uid_map || map=gid_map
    echo "$kind ids: $(awk '{ print ($1 == 0 && $2 == 0) ? "those of the host" : "mapped" }' /proc/self/$map | head -n 1)"
done
own=''
for kind in cgroup ipc mnt net pid time user uts; do
    is_of_host "$kind=$(readlink "/proc/self/ns/$kind")" || own="$own $kind"
done
echo "namespaces of its own:$own"
