# The resource limits of the process, one a line: `open_files=1024/4096`: soft and hard. /proc/self/limits has columns of a fixed width.
NR > 1 {
    name = substr($0, 5, 21)
    sub(/ +$/, "", name)
    gsub(/ /, "_", name)
    split(substr($0, 27), value, " ")
    print name "=" value[1] "/" value[2]
}
