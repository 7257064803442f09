# The kernel state of 0.1.0 for the containers of host.tar.gz: the lines of its tools' --explain without
# duplicates, and without lines that make files. Links have no alias, addresses and routes no protocol, and
# the table lacks what later versions add.
mount -t overlay stave:base -o lowerdir=/run/root/layers/1757870d98910ce5e859205b541ec1d651a99ed4eefcfe3ab5938462014af910:/run/root/mount-points,upperdir=/run/root/containers/base/upper,workdir=/run/root/containers/base/work,redirect_dir=off,index=off,metacopy=off,volatile,nodev /run/root/containers/base/rootfs
mkdir -p /run/netns
ip netns add base
ip -n base link set lo up alias 'stave base'
ip netns exec base sysctl -w net.ipv6.conf.default.disable_ipv6=1
nft add table ip stave
nft add map ip stave published '{ type inet_proto . inet_service : ipv4_addr . inet_service; }'
nft add map ip stave published_at '{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }'
nft add set ip stave bridges '{ type ipv4_addr . ifname; flags interval; }'
nft add set ip stave subnets '{ type ipv4_addr; flags interval; }'
nft add set ip stave same_bridge '{ type ifname . ifname; }'
nft add chain ip stave martians '{ type filter hook prerouting priority raw; policy accept; }'
nft add chain ip stave prerouting '{ type nat hook prerouting priority dstnat; policy accept; }'
nft add chain ip stave forward '{ type filter hook forward priority filter; policy accept; }'
nft add chain ip stave output '{ type nat hook output priority -100; policy accept; }'
nft add chain ip stave postrouting '{ type nat hook postrouting priority srcnat; policy accept; }'
nft add rule ip stave martians 'iifname != "lo" ip daddr 127.0.0.0/8 drop'
nft add rule ip stave martians 'iifname != "lo" ip saddr 127.0.0.0/8 drop'
nft add rule ip stave prerouting 'fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at'
nft add rule ip stave prerouting 'fib daddr type local dnat ip to meta l4proto . th dport map @published'
nft add rule ip stave forward 'iifname . iifname @same_bridge oifname . oifname @same_bridge iifname . oifname != @same_bridge ct status ! dnat drop'
nft add rule ip stave output 'fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at'
nft add rule ip stave output 'fib daddr type local dnat ip to meta l4proto . th dport map @published'
nft add rule ip stave postrouting 'ct status dnat ip saddr . oifname @bridges masquerade'
nft add rule ip stave postrouting 'ip saddr @subnets ip saddr . oifname != @bridges masquerade'
nft add element ip stave bridges '{ 172.17.0.0/16 . "stave0" }'
nft add element ip stave bridges '{ 127.0.0.0/8 . "stave0" }'
nft add element ip stave subnets '{ 172.17.0.0/16 }'
nft add element ip stave same_bridge '{ "stave0" . "stave0" }'
ip link add stave0 address 02:07:72:52:eb:75 type bridge
sysctl -w net.ipv6.conf.stave0.disable_ipv6=1
ip link set stave0 up
ip address add 172.17.0.1/16 broadcast + dev stave0
sysctl -w net.ipv4.conf.stave0.route_localnet=1
sysctl -w net.ipv4.ip_forward=1
ip link add v5dfb6e22cd address 02:03:f9:d5:56:a8 mtu 1500 master stave0 type veth peer name eth0 address 02:b8:8a:27:38:aa mtu 1500 netns base
sysctl -w net.ipv6.conf.v5dfb6e22cd.disable_ipv6=1
bridge link set dev v5dfb6e22cd hairpin on
ip link set v5dfb6e22cd up
ip -n base link set eth0 up
ip -n base address add 172.17.0.2/16 broadcast + dev eth0
ip -n base route add default via 172.17.0.1 dev eth0 proto static
mount -t overlay stave:web -o lowerdir=/run/root/layers/1757870d98910ce5e859205b541ec1d651a99ed4eefcfe3ab5938462014af910:/run/root/mount-points,upperdir=/run/root/containers/web/upper,workdir=/run/root/containers/web/work,redirect_dir=off,index=off,metacopy=off,volatile,nodev /run/root/containers/web/rootfs
ip netns add web
ip -n web link set lo up alias 'stave web'
ip netns exec web sysctl -w net.ipv6.conf.default.disable_ipv6=1
ip link add v45a564c0cc address 02:e8:d4:74:79:e0 mtu 1500 master stave0 type veth peer name eth0 address 02:60:cf:fa:33:7f mtu 1500 netns web
sysctl -w net.ipv6.conf.v45a564c0cc.disable_ipv6=1
bridge link set dev v45a564c0cc hairpin on
ip link set v45a564c0cc up
ip -n web link set eth0 up
ip -n web address add 172.17.0.3/16 broadcast + dev eth0
ip -n web route add default via 172.17.0.1 dev eth0 proto static
nft add element ip stave published '{ tcp . 18080 comment "web" : 172.17.0.3 . 80 }'
mount -t erofs -o ro,nodev /run/root/layers/1757870d98910ce5e859205b541ec1d651a99ed4eefcfe3ab5938462014af910.erofs /run/root/containers/fs/layers/1757870d98910ce5e859205b541ec1d651a99ed4eefcfe3ab5938462014af910
mount -t overlay stave:fs -o lowerdir=/run/root/containers/fs/layers/1757870d98910ce5e859205b541ec1d651a99ed4eefcfe3ab5938462014af910:/run/root/mount-points,upperdir=/run/root/containers/fs/upper,workdir=/run/root/containers/fs/work,redirect_dir=off,index=off,metacopy=off,xino=on,volatile,nodev /run/root/containers/fs/rootfs
