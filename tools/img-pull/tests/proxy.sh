#!/bin/bash
# One connection to a proxy that every host is behind, on this machine. Each one's first request is written to asked.log.
# Where there is a file `closed`, nobody is let through.
read -r method target version || exit
head="$method $target $version"$'\n'
while IFS= read -r line && [ "${line%$'\r'}" ]; do
    head+="$line"$'\n'
    case ${line,,} in proxy-authorization:*) authorization=${line#*: } ;; esac
done
echo "$method $target ${authorization%$'\r'}" >> asked.log
if [ -e closed ]; then
    printf 'HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    exit
fi
host=${target#http://}
port=${host%%/*}
port=${port##*:}
if [ "$method" = CONNECT ]; then
    printf 'HTTP/1.1 200 Connection established\r\n\r\n'
    exec socat - "TCP:127.0.0.1:$port"
fi
{ printf '%s\r\n' "$head"; exec cat; } | exec socat - "TCP:127.0.0.1:$port"
